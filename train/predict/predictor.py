"""One chunk of rows in, one chunk of predictions out: a function of the rows, the model and the settings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train import adapter, slices
from ringtune.train.columns import Columns
from ringtune.train.contract import StopRequested
from ringtune.train.device import name_out_of_memory
from ringtune.train.evaluate import outputs_of, plan_chunk
from ringtune.train.predict import writer
from ringtune.train.predict.clock import Clock
from ringtune.train.scores import Scored
from ringtune.train.shapes import WORDS
from ringtune.train.step import Precision
from ringtune.train.task import Task
from ringtune.train.tokens import Features, term_places
from torch import nn

_SCORE = "score/"  # before the names of a part's columns that are not written but scored
SCORE_LABEL, SCORE_OUTPUTS, _SCORE_SLICE = f"{_SCORE}label", f"{_SCORE}outputs", f"{_SCORE}{slices.PREFIX}"
_WRITTEN = f"{_SCORE}kept/"  # in a part, before the names of kept columns that begin as if they were scored
LOWER = "lower --batch_tokens or --max_seq_length"


def cast_weights(model: nn.Module, precision: Precision) -> nn.Module:
    """Cast once, in place, the weights that autocast would cast for every batch, and return the model.

    The bits are those of autocast, which casts to the same format; in inference mode it keeps nothing between batches.
    Some adapters compute with the weights themselves, in fp32: where there is an adapter, autocast is left to it.
    """
    if precision.autocast is not None and adapter.of(model) is None:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.to(precision.autocast)
    return model


class Predictor:
    """A model ready to predict chunks of rows; threads may share it. It takes the model over and casts its weights."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        tokenizer: Any,
        max_seq_length: int,
        batch_tokens: int,
        precision: Precision,
        *,
        top_k: int | None = None,
    ) -> None:
        """batch_tokens: of a batch, after padding. top_k: as `Task.predictions` takes it."""
        self.task, self.tokenizer, self.precision = task, tokenizer, precision
        self.model = cast_weights(model.eval(), precision)
        self.max_seq_length, self.batch_tokens, self.top_k = max_seq_length, batch_tokens, top_k
        # Sets truncation and padding once: the library refuses to set them while another thread encodes.
        task.encode(_blank(), tokenizer, max_seq_length)

    def output_names(self, columns: Columns) -> list[str]:
        """Return the names of the columns that are predicted from these."""
        return [*self.task.output_names(columns.form == WORDS, self.top_k), "error"]

    def describe_columns(self, columns: Columns, names: Sequence[str]) -> str:
        """Return what is read and kept, and under which names, in one line. names: all columns of the input."""
        shown = kept_names(columns.kept, self.output_names(columns))
        renamed = [f"{name} as {to}" for name, to in shown.items() if name != to]
        return columns.describe(names) + (f"; written {', '.join(renamed)}" if renamed else "")

    def predict(
        self, chunk: pa.RecordBatch, clock: Clock, should_stop: Callable[[], bool] = lambda: False
    ) -> pa.RecordBatch:
        """Return kept columns, predictions and errors of a chunk of the reader's rows, and what their scores need.

        The arithmetic of a row depends on the other rows of its chunk, never on other chunks, ranks or threads. Raises
        StopRequested between batches when ``should_stop()``.
        """
        errors = chunk.column("error").to_pylist()
        usable = np.array([row for row, error in enumerate(errors) if error is None], dtype=np.int64)
        rows = chunk.take(pa.array(usable)) if len(usable) else _blank(*chunk.schema.names)
        with clock.on("tokenising"):
            features = self.task.encode(rows, self.tokenizer, self.max_seq_length)
        outputs = self._outputs(features, clock, should_stop)
        row_of_terms = np.repeat(features.row_of, features.num_terms)
        place = np.full(chunk.num_rows, -1)  # of each row among those that are predicted
        place[usable] = np.arange(len(usable))
        for row in usable[np.unique(row_of_terms[~np.isfinite(outputs).all(axis=1)])].tolist() if len(usable) else ():
            errors[row], place[row] = "the model gives no finite number for it", -1
        values = {**self._predictions(outputs, features, rows, place), "error": pa.array(errors, pa.string())}
        kept = {_name_in_part(name): each for name, each in kept_columns(chunk, values).items()}
        columns = {**kept, **values}
        if "label" in chunk.schema.names:
            columns |= self._scored(outputs, features, row_of_terms, usable, len(errors))
            names = [name for name in chunk.schema.names if name.startswith(slices.PREFIX)]
            columns |= {f"{_SCORE}{name}": chunk.column(name) for name in names}
        fields = [
            pa.field(name, each.type, metadata=writer.PREDICTED if name in values else None)
            for name, each in columns.items()
        ]
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def _outputs(self, features: Features, clock: Clock, should_stop: Callable[[], bool]) -> np.ndarray:
        """Return the model's outputs for the terms of features, float32 [terms, W]."""
        outputs = np.empty((int(features.num_terms.sum()), self.task.width), dtype=np.float32)
        with clock.on("computing"):
            for batch in plan_chunk(features.lengths, self.batch_tokens):
                if should_stop():
                    raise StopRequested
                with name_out_of_memory(lambda: "a batch", self.precision.device, LOWER):
                    found = outputs_of(self.model, self.task, features, batch, self.precision).numpy()
                outputs[term_places(features.num_terms, batch)] = found
        return outputs

    def _predictions(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch, place: np.ndarray
    ) -> dict[str, pa.Array]:
        """Return the columns of the task's predictions. place: of each row of the chunk among them; -1: it has none."""
        numbers = np.where(np.isfinite(outputs), outputs, np.float32(0))
        columns = self.task.predict_rows(numbers, features, rows, self.top_k)
        where = pa.array(place, mask=place < 0)
        return {name: each.take(where) for name, each in columns.items()}

    def _scored(
        self, outputs: np.ndarray, features: Features, row_of_terms: np.ndarray, usable: np.ndarray, num_rows: int
    ) -> dict[str, pa.Array]:
        """Return labels and outputs of the terms of each row of the chunk, as lists."""
        labels = self.task.targets(features)
        if not len(usable) or labels is None:
            row_of_terms, outputs, labels = row_of_terms[:0], outputs[:0], np.zeros((0, 1))
        counts = np.bincount(usable[row_of_terms], minlength=num_rows)
        return {SCORE_LABEL: _lists(labels, counts), SCORE_OUTPUTS: _lists(outputs, counts)}


def _blank(*names: str) -> pa.RecordBatch:
    """Return a row that predicts nothing: to set a tokenizer up, and for the types of a chunk without a usable row.

    names: the columns of its chunk; it has those that say what a row is.
    """
    words = {"words": pa.array([[]], pa.list_(pa.int64()))} if "words" in names else {}
    return pa.RecordBatch.from_pydict({"text/0": [""], **words})


def _lists(values: np.ndarray, counts: np.ndarray) -> pa.Array:
    """Return numbers of terms, [terms, ...], as a list of numbers for each row. counts: terms of each row. **Pure.**"""
    each = values[0].size if len(values) else 1
    offsets = np.concatenate([[0], np.cumsum(counts * each)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values.reshape(-1)))


def kept_columns(chunk: pa.RecordBatch, taken: Iterable[str]) -> dict[str, pa.Array]:
    """Return the input columns to keep under the names of `kept_names`. **Pure.**"""
    plain = [name.removeprefix("kept/") for name in chunk.schema.names if name.startswith("kept/")]
    return {shown: chunk.column(f"kept/{name}") for name, shown in kept_names(plain, taken).items()}


def kept_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return the name under which each kept column is written: its own, or ``input_NAME``. **Pure.**

    taken: the names of predictions. No two columns get the same name: beside ``input_label``, ``label`` becomes
    ``input_input_label``.
    """
    names, predicted = list(dict.fromkeys(names)), set(taken)
    used = predicted | set(names)
    shown = {}
    for name in names:
        target = name
        while target in predicted or (target != name and target in used):
            target = f"input_{target}"
        used.add(target)
        shown[name] = target
    return shown


def scored_slices(part: pa.RecordBatch, task: Task) -> pa.RecordBatch:
    """Return the slice columns for the terms of a part that can be scored, under the reader's names. **Pure.**"""
    names = [name for name in part.schema.names if name.startswith(_SCORE_SLICE)]
    columns = {name.removeprefix(_SCORE): part.column(name) for name in names}
    rows = _row_of_terms(part, task)[_scored_terms(part, task)[2]]
    return pa.RecordBatch.from_pydict(columns).take(pa.array(rows, pa.int64()))


def scored_rows(part: pa.RecordBatch, task: Task) -> Scored:
    """Return outputs [terms, W] and labels [terms, ...] of the terms of a part that can be scored. **Pure.**"""
    outputs, labels, scored = _scored_terms(part, task)
    return outputs[scored], labels[scored]


def _scored_terms(part: pa.RecordBatch, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outputs and labels of the terms of a part, and which of them can be scored: of whole rows."""
    outputs = _flat(part.column(SCORE_OUTPUTS)).reshape(-1, task.width)
    labels = _flat(part.column(SCORE_LABEL))
    if not len(outputs):
        return outputs, labels, np.zeros(0, dtype=bool)
    if task.has_several_labels or len(labels) != len(outputs):
        labels = labels.reshape(len(outputs), -1)
    rows = _row_of_terms(part, task)
    has_error = np.isin(rows, rows[~np.isfinite(outputs).all(axis=1)])
    return outputs, labels, task.has_label(labels) & ~has_error


def _row_of_terms(part: pa.RecordBatch, task: Task) -> np.ndarray:
    """Return the row of each term of a part, int64 [terms]."""
    num_numbers = pc.list_value_length(part.column(SCORE_OUTPUTS)).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(part.num_rows), num_numbers // task.width)


def _flat(lists: pa.Array) -> np.ndarray:
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False))


def has_labels(part: pa.RecordBatch) -> bool:
    """Return whether a part is of an input with a label column. **Pure.**"""
    return SCORE_LABEL in part.schema.names and SCORE_OUTPUTS in part.schema.names


def shown_columns(part: pa.RecordBatch) -> pa.RecordBatch:
    """Return a part without what only its scores need, under the names that are written. **Pure.**"""
    scored = (SCORE_LABEL, SCORE_OUTPUTS)
    names = [name for name in part.schema.names if name not in scored and not name.startswith(_SCORE_SLICE)]
    return part.select(names).rename_columns([name.removeprefix(_WRITTEN) for name in names])


def _name_in_part(shown: str) -> str:
    """Return a name for a kept column that no column of scores has. shown: the one that is written."""
    return f"{_WRITTEN}{shown}" if shown.startswith(_SCORE) else shown
