"""Texts joined across the batches of a split, and cut into features of one length; nothing is lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from ringtune.train.contract import UsageError
from ringtune.train.task import Task
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.text_pieces import features_of
from ringtune.train.tokens import Features


class JoinedTexts:
    """Cuts the tokens of a split into features, across the batches of its rows; those of most tasks stay as they are.

    A feature that begins in an earlier batch has a row number below 0 in the one that completes it, counted from the
    first row of that batch.
    """

    def __init__(self, task: Task, max_seq_length: int) -> None:
        self.masking = task.masking if isinstance(task, MaskedLM) else None
        self.joins = self.masking is not None and not self.masking.line_by_line
        self.size = max_seq_length
        self.rest: Features | None = None  # tokens that no feature has yet, as one
        self.rows = np.empty(0, dtype=np.int64)  # the row of each of these tokens
        self.num_terms = 0

    def add(self, features: Features, num_rows: int) -> Features:
        """Return the features that are complete with those of the next ``num_rows`` rows."""
        if not self.joins:
            self.num_terms += int(features.num_terms.sum())
            return features
        rows = np.concatenate([self.rows, np.repeat(features.row_of, features.lengths)])
        columns = dict(features.token_columns)
        if self.rest is not None:
            columns = {name: np.concatenate([self.rest.token_columns[name], each]) for name, each in columns.items()}
        stop = len(rows) // self.size * self.size
        found = self._cut(columns, rows, 0, stop, features)
        rows = rows - num_rows  # counted from the first row of the next batch
        self.rest, self.rows = self._cut(columns, rows, stop, len(rows), features), rows[stop:]
        self.num_terms += int(found.num_terms.sum())
        return found

    def hashed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that count as training rows where they stand in another split, too: no blank lines."""
        if self.masking is None:
            return rows
        return rows.filter(pa.array([bool(text.strip()) for text in rows.column("text/0").to_pylist()]))

    def finish(self, where: str) -> Features | None:
        """Return the last, shorter feature, None if there is none. where: the input.

        Raises UsageError where no token of all rows can be masked.
        """
        rest = self.rest if self.rest is not None and len(self.rows) else None
        num_terms = self.num_terms + (int(rest.num_terms.sum()) if rest is not None else 0)
        if self.masking is not None and not num_terms:
            raise UsageError(
                where, "there is no token in it that could be masked", legal="text of words that the tokenizer knows"
            )
        return rest

    def _cut(self, columns: dict[str, np.ndarray], rows: np.ndarray, start: int, stop: int, like: Features) -> Features:
        """Return the tokens from start to stop as features."""
        assert self.masking is not None
        bounds = np.append(np.arange(start, stop, self.size), stop)
        part = {name: each[start:stop] for name, each in columns.items()}
        lengths = np.diff(bounds).astype(np.int32)
        return features_of(part, lengths, rows[bounds[:-1]], self.masking.count, like.padding)
