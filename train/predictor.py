"""One chunk of rows in, one chunk of predictions out: a function of the rows, the model and the settings alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ringtune.train import tokens, writer
from ringtune.train.clock import Clock
from ringtune.train.contract import StopRequested
from ringtune.train.evaluate import logits_of, plan_chunk
from ringtune.train.predict_config import PredictConfig
from ringtune.train.step import Precision
from torch import nn

SCORE_LABEL, SCORE_LOGITS = "score/label", "score/logits"  # columns of a part that are not written but scored
NO_CLASS = -1
DEFAULT_MAX_SEQ_LENGTH = 128


def class_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a classifier's classes, () of a model that predicts a number."""
    settings: Any = model.config
    if settings.num_labels == 1 or settings.problem_type == "regression":
        return ()
    return tuple(str(settings.id2label[number]) for number in range(settings.num_labels))


def prediction_columns(classes: Sequence[str], top_k: int | None) -> list[str]:
    """Return the names of the columns that say what the model predicts. **Pure.**"""
    if not classes:
        return ["value"]
    if top_k is None:
        return ["label", *(f"probability_{name}" for name in classes)]
    places = ["", *(f"_{place}" for place in range(2, min(top_k, len(classes)) + 1))]
    return [f"{what}{place}" for place in places for what in ("label", "probability")]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row, float32 [N, C], summed in float64. **Pure.**"""
    scores = logits.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def class_numbers(labels: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    """Return the class each label names, int64 [N], NO_CLASS where it names none. **Pure.**

    A label is a class's name; what training read from a CSV file as a number or a truth value is named in Python's
    spelling. Where classes have no names of their own (LABEL_0, ...), it is a class's number.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    if all(name == f"LABEL_{number}" for number, name in enumerate(classes)):
        numbers |= {str(number): number for number in range(len(classes))}

    def number_of(label: str | None) -> int:
        if label is None:
            return NO_CLASS
        spellings = (label, label.strip(), label.strip().capitalize())
        return next((numbers[each] for each in spellings if each in numbers), NO_CLASS)

    return np.fromiter(map(number_of, labels), dtype=np.int64, count=len(labels))


def ratings(labels: Sequence[str | None]) -> np.ndarray:
    """Return the number each label is, float32 [N], not a number where it is none. **Pure.**"""

    def rating(label: str | None) -> float:
        try:
            value = float(label) if label is not None else np.nan
        except ValueError:
            return np.nan
        return value if np.isfinite(value) else np.nan

    return np.fromiter(map(rating, labels), dtype=np.float64, count=len(labels)).astype(np.float32)


def cast_weights(model: nn.Module, precision: Precision) -> nn.Module:
    """Cast the weights that autocast would cast for every batch anew, in place, and return the model.

    The bits stay those of autocast, which casts to the same format; in inference mode it keeps nothing between batches.
    """
    if precision.autocast is not None:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.to(precision.autocast)
    return model


class Predictor:
    """A model ready to predict chunks, which it takes over; threads may share it."""

    def __init__(self, model: nn.Module, tokenizer: Any, config: PredictConfig, precision: Precision) -> None:
        assert config.batch_tokens is not None  # resolved
        self.model, self.tokenizer, self.precision = cast_weights(model.eval(), precision), tokenizer, precision
        self.max_seq_length = config.max_seq_length or min(DEFAULT_MAX_SEQ_LENGTH, tokenizer.model_max_length)
        self.batch_tokens, self.top_k = config.batch_tokens, config.top_k
        self.classes = class_names(model)
        tokens.require_usable(tokenizer, self.max_seq_length)
        # Sets truncation and padding once: setting them while another thread encodes would be refused by the library.
        tokens.encode(tokenizer, [[""]], self.max_seq_length)

    def predict(
        self, chunk: pa.RecordBatch, clock: Clock, should_stop: Callable[[], bool] = lambda: False
    ) -> pa.RecordBatch:
        """Return kept columns, predictions and errors of a chunk of the reader's rows, and what their scores need.

        The arithmetic of a row depends on the other rows of its chunk, never on other chunks, ranks or threads. Raises
        StopRequested between batches when ``should_stop()``.
        """
        errors = chunk.column("error").to_pylist()
        usable = np.array([row for row, error in enumerate(errors) if error is None], dtype=np.int64)
        logits = np.full((chunk.num_rows, int(self.model.config.num_labels)), np.nan, dtype=np.float32)  # type: ignore[union-attr, arg-type]
        if len(usable):
            logits[usable] = self._logits(chunk.take(pa.array(usable)), clock, should_stop)
        is_good = np.asarray(np.isfinite(logits).all(axis=1))
        errors = [
            error or (None if good else "the model gives no finite number for it")
            for error, good in zip(errors, is_good, strict=True)
        ]
        values = {**self._predictions(logits, ~is_good), "error": pa.array(errors, pa.string())}
        columns = {**kept_columns(chunk, values), **values, **self._scored(chunk, logits)}
        fields = [
            pa.field(name, each.type, metadata=writer.PREDICTED if name in values else None)
            for name, each in columns.items()
        ]
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def _logits(self, chunk: pa.RecordBatch, clock: Clock, should_stop: Callable[[], bool]) -> np.ndarray:
        texts = [chunk.column(name).to_pylist() for name in chunk.schema.names if name.startswith("text/")]
        with clock.on("tokenising"):
            rows = tokens.encode(self.tokenizer, texts, self.max_seq_length)
        logits = np.empty((chunk.num_rows, int(self.model.config.num_labels)), dtype=np.float32)  # type: ignore[union-attr, arg-type]
        with clock.on("computing"):
            for batch in plan_chunk(rows.lengths, self.batch_tokens):
                if should_stop():
                    raise StopRequested
                logits[batch] = logits_of(self.model, rows, batch, self.precision).numpy()
        return logits

    def _predictions(self, logits: np.ndarray, is_null: np.ndarray) -> dict[str, pa.Array]:
        names = prediction_columns(self.classes, self.top_k)
        if not self.classes:
            return {names[0]: pa.array(logits[:, 0], mask=is_null)}
        shares = probabilities(np.where(is_null[:, None], 0, logits))
        best_first = np.argsort(-logits, axis=1, kind="stable")
        words = np.array(self.classes, dtype=object)
        if self.top_k is None:
            columns = [words[best_first[:, 0]], *shares.T]
        else:
            ranked = (best_first[:, place] for place in range(min(self.top_k, len(self.classes))))
            columns = [each for numbers in ranked for each in (words[numbers], shares[np.arange(len(shares)), numbers])]
        return {
            name: pa.array(column, pa.string() if column.dtype == object else pa.float32(), mask=is_null)
            for name, column in zip(names, columns, strict=True)
        }

    def _scored(self, chunk: pa.RecordBatch, logits: np.ndarray) -> dict[str, pa.Array]:
        if "label" not in chunk.schema.names:
            return {}
        labels = chunk.column("label").to_pylist()
        numbers = class_numbers(labels, self.classes) if self.classes else ratings(labels)
        return {
            SCORE_LABEL: pa.array(numbers),
            SCORE_LOGITS: pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1]),
        }


def kept_columns(chunk: pa.RecordBatch, taken: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Return the input columns to show, under their names, or ``input_NAME`` where a prediction has that name. **Pure.**"""
    names = [name for name in chunk.schema.names if name.startswith("kept/")]
    plain = {name: name.removeprefix("kept/") for name in names}
    return {(f"input_{plain[name]}" if plain[name] in taken else plain[name]): chunk.column(name) for name in names}


def scored_rows(part: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [N, C] and labels [N] of the rows of a part that can be scored. **Pure.**"""
    labels = part.column(SCORE_LABEL).to_numpy(zero_copy_only=False)
    lists = part.column(SCORE_LOGITS)
    logits = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(labels), -1)
    has_label = np.isfinite(labels) if labels.dtype.kind == "f" else labels != NO_CLASS
    scored = has_label & np.isfinite(logits).all(axis=1)
    return logits[scored], labels[scored]


def shown_columns(part: pa.RecordBatch) -> pa.RecordBatch:
    """Return a part without what only its scores need. **Pure.**"""
    return part.select([name for name in part.schema.names if not name.startswith("score/")])
