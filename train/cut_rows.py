"""How long rows are beside what the model takes: of a row with choices, its longest choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from ringtune.train.rows import texts_of
from ringtune.train.shapes import CHOICES
from ringtune.train.task.choices import CHOICE_LENGTHS, choices_of, pairs_of
from ringtune.train.tokens import Features, uncut_lengths


def model_lengths(features: Features) -> np.ndarray:
    """Return the tokens of the longest row of the model that each feature gives, int32 [num_features]. **Pure.**"""
    choices = features.feature_columns.get(CHOICE_LENGTHS)
    return features.lengths if choices is None else np.asarray(choices.max(axis=1))


def uncut_model_lengths(tokenizer: Any, rows: pa.RecordBatch) -> np.ndarray:
    """Return the same of the reader's rows before any is cut, int64 [N].

    It sets the tokenizer's truncation: not while another thread uses it.
    """
    if CHOICES not in rows.schema.names:
        return uncut_lengths(tokenizer, texts_of(rows))
    counts = [sum(choice is not None for choice in several) for several in choices_of(rows)]
    lengths = uncut_lengths(tokenizer, pairs_of(rows))
    return np.asarray(np.maximum.reduceat(lengths, np.cumsum([0, *counts[:-1]])))
