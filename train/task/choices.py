"""Features of rows with choices: a row is one feature, the tokens of its choices one behind the other.

A choice is a pair of texts, the context and the choice. All of a row are computed in one batch, each as a row of the
model of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from ringtune.train import tokens
from ringtune.train.shapes import CHOICES
from ringtune.train.tokens import Features

#: Feature column: the tokens of each choice, 0 for a missing one, [num_features, C].
CHOICE_LENGTHS = "choice_lengths"
#: Of a batch: which of C choices each feature has, [B, C]; and which of the B * C each row of the model is, [N].
IS_CHOICE, PLACES = "is_choice", "places"


def choices_of(rows: pa.RecordBatch) -> list[list[str | None]]:
    """Return the choices of the reader's rows, None for missing ones; of rows without any, two empty ones. **Pure.**"""
    if CHOICES not in rows.schema.names:  # a blank row, which stands for none
        return [["", ""]] * rows.num_rows
    return list(rows.column(CHOICES).to_pylist())


def pairs_of(rows: pa.RecordBatch) -> tuple[list[str], list[str]]:
    """Return the two texts of each choice that is there, one row behind the other: its context and itself. **Pure.**

    Where there is a text that begins each choice, a blank stands behind it.
    """
    contexts = rows.column("text/0").to_pylist()
    begins = rows.column("text/1").to_pylist() if "text/1" in rows.schema.names else [""] * rows.num_rows
    found = [
        (context, f"{begin} {choice}" if begin else choice)
        for context, begin, several in zip(contexts, begins, choices_of(rows), strict=True)
        for choice in several
        if choice is not None
    ]
    return [context for context, _ in found], [choice for _, choice in found]


def encode(tokenizer: Any, rows: pa.RecordBatch, max_seq_length: int, width: int) -> Features:
    """Return one feature, without a label, for each row. width: C, the most choices of a row.

    A choice of more than max_seq_length tokens is cut, the longer of its two texts first.
    """
    found = tokens.encode(tokenizer, pairs_of(rows), max_seq_length)
    is_choice = np.zeros((rows.num_rows, width), dtype=bool)
    for row, several in enumerate(choices_of(rows)):
        is_choice[row, : len(several)] = [choice is not None for choice in several]
    lengths = np.zeros(is_choice.shape, dtype=np.int32)
    lengths[is_choice] = found.lengths
    total = lengths.sum(axis=1, dtype=np.int32)
    return replace(
        found,
        offsets=np.cumsum([0, *total], dtype=np.int64),
        feature_columns={CHOICE_LENGTHS: lengths},
        row_of=np.arange(rows.num_rows, dtype=np.int64),
        num_terms=np.ones(rows.num_rows, dtype=np.int32),
        lengths=total,
    )


def collate(features: Features, chosen: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
    """Return a batch whose rows are choices, N of B features: token columns [N, T], IS_CHOICE, PLACES, other feature
    columns [B, ...].

    The longest choices come first, as rows of like length are computed together.
    """
    chosen = np.asarray(chosen, dtype=np.int64)
    lengths = features.feature_columns[CHOICE_LENGTHS][chosen]
    starts = features.offsets[chosen][:, None] + np.cumsum(lengths, axis=1, dtype=np.int64) - lengths
    places = np.flatnonzero(lengths)
    places = places[np.argsort(-lengths.reshape(-1)[places], kind="stable")]
    rows = replace(
        features, offsets=starts.reshape(-1)[places], feature_columns={}, lengths=lengths.reshape(-1)[places]
    )
    batch = tokens.collate(rows, np.arange(len(places)))
    batch |= {IS_CHOICE: torch.from_numpy(lengths > 0), PLACES: torch.from_numpy(places)}
    others = {name: each for name, each in features.feature_columns.items() if name != CHOICE_LENGTHS}
    return batch | {name: torch.from_numpy(np.array(each[chosen])) for name, each in others.items()}
