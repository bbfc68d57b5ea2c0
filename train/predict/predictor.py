"""One chunk of rows in, one chunk of predictions out: a function of the rows, the model and the settings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train import adapter, slices, tokens
from ringtune.train.columns import Columns
from ringtune.train.contract import StopRequested
from ringtune.train.device import name_out_of_memory
from ringtune.train.evaluate import outputs_of, plan_chunk
from ringtune.train.predict import writer
from ringtune.train.predict.clock import Clock
from ringtune.train.scores import Scored
from ringtune.train.step import Precision
from ringtune.train.task import Task
from torch import nn

SCORE_LABEL, SCORE_OUTPUTS = "score/label", "score/outputs"  # columns of a part that are not written but scored
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
        tokens.encode(tokenizer, [[""]], max_seq_length)

    @property
    def output_names(self) -> list[str]:
        """Names of the columns that are predicted."""
        nothing = np.zeros((0, self.task.width), dtype=np.float32)
        return [*self.task.predictions(nothing, self.top_k), "error"]

    def describe_columns(self, columns: Columns, names: Sequence[str]) -> str:
        """Return what is read and kept, and under which names, in one line. names: all columns of the input."""
        renamed = [f"{name} as {to}" for name, to in kept_names(columns.kept, self.output_names).items() if name != to]
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
        outputs = np.full((chunk.num_rows, self.task.width), np.nan, dtype=np.float32)
        if len(usable):
            outputs[usable] = self._outputs(chunk.take(pa.array(usable)), clock, should_stop)
        is_good = np.asarray(np.isfinite(outputs).all(axis=1))
        errors = [
            error or (None if good else "the model gives no finite number for it")
            for error, good in zip(errors, is_good, strict=True)
        ]
        values = {**self._predictions(outputs, is_good), "error": pa.array(errors, pa.string())}
        columns = {**kept_columns(chunk, values), **values, **self._scored(chunk, outputs)}
        fields = [
            pa.field(name, each.type, metadata=writer.PREDICTED if name in values else None)
            for name, each in columns.items()
        ]
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def _outputs(self, rows: pa.RecordBatch, clock: Clock, should_stop: Callable[[], bool]) -> np.ndarray:
        """Return the model's outputs for usable rows, float32 [N, W]."""
        with clock.on("tokenising"):
            features = self.task.encode(rows, self.tokenizer, self.max_seq_length)
        outputs = np.empty((rows.num_rows, self.task.width), dtype=np.float32)
        with clock.on("computing"):
            for batch in plan_chunk(features.lengths, self.batch_tokens):
                if should_stop():
                    raise StopRequested
                with name_out_of_memory(lambda: "a batch", self.precision.device, LOWER):
                    outputs[batch] = outputs_of(self.model, self.task, features, batch, self.precision).numpy()
        return outputs

    def _predictions(self, outputs: np.ndarray, is_good: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns of the task's predictions, null in rows without one."""
        columns = self.task.predictions(np.where(is_good[:, None], outputs, np.float32(0)), self.top_k)
        mask = pa.array(is_good)
        return {name: pc.if_else(mask, each, pa.scalar(None, each.type)) for name, each in columns.items()}

    def _scored(self, chunk: pa.RecordBatch, outputs: np.ndarray) -> dict[str, pa.Array]:
        """Return labels and outputs of the rows, and what slices they are in, if they have a label column."""
        if "label" not in chunk.schema.names:
            return {}
        labels = self.task.labels(chunk.column("label").to_pylist())
        sliced = {f"score/{name}": chunk.column(name) for name in chunk.schema.names if name.startswith(slices.PREFIX)}
        return {
            **sliced,
            SCORE_LABEL: pa.array(labels),
            SCORE_OUTPUTS: pa.FixedSizeListArray.from_arrays(pa.array(outputs.reshape(-1)), outputs.shape[1]),
        }


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
    """Return the slice columns of the rows of a part that can be scored, under the reader's names. **Pure.**"""
    start = f"score/{slices.PREFIX}"
    columns = {name.removeprefix("score/"): part.column(name) for name in part.schema.names if name.startswith(start)}
    return pa.RecordBatch.from_pydict(columns).filter(pa.array(_scored_rows(part, task)[2]))


def scored_rows(part: pa.RecordBatch, task: Task) -> Scored:
    """Return outputs [N, W] and labels [N] of the rows of a part that can be scored. **Pure.**"""
    outputs, labels, scored = _scored_rows(part, task)
    return outputs[scored], labels[scored]


def _scored_rows(part: pa.RecordBatch, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = part.column(SCORE_LABEL).to_numpy(zero_copy_only=False)
    lists = part.column(SCORE_OUTPUTS)
    outputs = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(labels), -1)
    return outputs, labels, task.has_label(labels) & np.isfinite(outputs).all(axis=1)


def shown_columns(part: pa.RecordBatch) -> pa.RecordBatch:
    """Return a part without what only its scores need. **Pure.**"""
    return part.select([name for name in part.schema.names if not name.startswith("score/")])
