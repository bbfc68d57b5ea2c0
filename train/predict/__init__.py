"""Prediction of every row of an input, once and in order, by any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def predict(
    model_name_or_path: str,
    input: str | Iterable[str | tuple[str, str] | Mapping[str, Any]],
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """Give the rows that ``ringtune-predict`` writes, as dictionaries, one after the other; without ranks or files.

    input: a file or data set as for the command, or any iterable of texts, of pairs of texts, or of dictionaries with
    the model's columns. settings: those of PredictConfig. Only a few chunks of rows are in memory at a time. Raises
    UsageError.
    """
    from ringtune.train.predict.stream import stream  # imported here: the command's --help needs none of it

    return stream(str(model_name_or_path), input, **settings)
