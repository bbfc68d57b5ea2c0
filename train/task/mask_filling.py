"""Prediction with a model of masked tokens: the best tokens for each mask of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from ringtune.train.columns import Columns
from ringtune.train.source import Source
from ringtune.train.task import text_pieces
from ringtune.train.task.masked_lm import MaskedLM, logits_of
from ringtune.train.task.masking import Vocabulary
from ringtune.train.task.text_pieces import Drawn
from ringtune.train.tokens import Features

TOKENS, FILLED, TEXT_FILLED = "tokens", "filled", "text_filled"
_BEST = pa.list_(pa.list_(pa.struct([("token", pa.string()), ("probability", pa.float64())])))
_GOES_ON = "##"  # begins a piece of BERT's tokenizer that goes on with the word before it


@dataclass(frozen=True)
class MaskFilling(MaskedLM):
    """Fill each mask token that a text has. A term is such a token; its outputs are the best tokens, then theirs
    probabilities, [terms, 2 K]."""

    tokenizer: Any = field(compare=False, repr=False)
    top_k: int | None = None  # write so many tokens for each mask, with probabilities; None: the best one alone

    score_names: ClassVar[tuple[str, ...]] = ()

    @property
    def num_best(self) -> int:
        """K: tokens for each mask."""
        return min(self.top_k or 1, len(self.tokenizer))

    @property
    def width(self) -> int:
        """Numbers for a mask."""
        return 2 * self.num_best

    @property
    def mask_token(self) -> str:
        """What stands in a text where a token is to be filled in."""
        return str(self.tokenizer.mask_token)

    def describe(self) -> str:
        """Return what is predicted."""
        return f"the best token for each {self.mask_token}"

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return the windows of each text that have a mask: see `text_pieces.encode_masks`."""
        texts = rows.column("text/0").to_pylist()
        return text_pieces.encode_masks(tokenizer, texts, max_seq_length, Vocabulary.of(tokenizer))

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch as it is; nothing in it is random."""

        def draw(number: int) -> Drawn:
            ids, units = text_pieces.units_of(features, number)
            places = np.flatnonzero(units)
            return places, ids[places]

        return text_pieces.collate(features, chosen, draw)

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the K best tokens of each mask, best first, and their probabilities, float32 [terms, 2 K]."""
        best = logits_of(output, batch).softmax(dim=1).topk(self.num_best, dim=1)
        return torch.cat([best.indices.float(), best.values], dim=1)  # a vocabulary has fewer than 2 ** 24 tokens

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of `predict_rows`."""
        return [TOKENS if self.top_k is None else FILLED, TEXT_FILLED]

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return for each row the best token of each mask, or the K best with probabilities, and the text with the
        best ones filled in."""
        assert rows is not None
        texts = rows.column("text/0").to_pylist()
        counts = np.bincount(np.repeat(features.row_of, features.num_terms), minlength=len(texts))
        stops = np.cumsum(counts).tolist()
        names = {number: self._name(number) for number in np.unique(outputs[:, : self.num_best].astype(int)).tolist()}
        by_row = [
            [self._best(names, each) for each in outputs[stop - count : stop]]
            for stop, count in zip(stops, counts.tolist(), strict=True)
        ]
        firsts = [[best[0]["token"] for best in row] for row in by_row]
        text = [fill(text, self.mask_token, row) for text, row in zip(texts, firsts, strict=True)]
        if self.top_k is None:
            found = {TOKENS: pa.array(firsts, pa.list_(pa.string()))}
        else:
            found = {FILLED: pa.array(by_row, _BEST)}
        return found | {TEXT_FILLED: pa.array(text, pa.string())}

    def _name(self, number: int) -> str:
        """Return a token as text, as the pipeline of transformers does."""
        return str(self.tokenizer.decode([number]))

    def _best(self, names: Mapping[int, str], outputs: np.ndarray) -> list[dict[str, Any]]:
        """Return the best tokens of one mask. outputs: [2 K]."""
        best = zip(outputs[: self.num_best].astype(int).tolist(), outputs[self.num_best :], strict=True)
        return [{"token": names[number], "probability": float(str(share))} for number, share in best]


def for_prediction(task: Any, tokenizer: Any, top_k: int | None) -> Any:
    """Return the task as it predicts: one that fills masks for one that learnt to, any other as it is.

    Raises UsageError for a tokenizer without a mask token.
    """
    if not isinstance(task, MaskedLM):
        return task
    Vocabulary.of(tokenizer)
    return MaskFilling(task.columns, task.masking, tokenizer, top_k)


def fill(text: str, mask_token: str, tokens: Sequence[str]) -> str | None:
    """Return a text with a token for each mask; None if it has not as many. **Pure.**

    A piece that goes on with a word, ``##s``, is joined to the word before it.
    """
    parts = text.split(mask_token)
    if len(parts) != len(tokens) + 1:
        return None
    filled = parts[0]
    for token, part in zip(tokens, parts[1:], strict=True):
        token = token.strip()
        if token.startswith(_GOES_ON) and token != _GOES_ON and re.search(r"\w\s*$", filled):
            filled, token = filled.rstrip(), token.removeprefix(_GOES_ON)
        filled += token + part
    return filled


def with_masks(source: Source, task: Any) -> Source:
    """Return a source whose texts without a mask are rows that cannot be used; any other task's as it is."""
    if not isinstance(task, MaskFilling):
        return source

    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        for batch in source.read(columns):
            errors = batch.column("error").to_pylist()
            for row, text in enumerate(batch.column("text/0").to_pylist()):
                if errors[row] is None and task.mask_token not in text:
                    errors[row] = f"there is no {task.mask_token} in column {columns.text[0][:40]!r}"
            index = batch.schema.get_field_index("error")
            yield batch.set_column(index, "error", pa.array(errors, pa.string()))

    return replace(source, read=read)
