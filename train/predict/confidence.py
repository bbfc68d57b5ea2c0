"""Rows whose prediction is sure, and no others: ``--min_confidence``, to train on them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train.contract import UsageError
from ringtune.train.task import Task
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel

FLAG = "--min_confidence"


def require_probabilities(task: Task, min_confidence: float | None, top_k: int | None) -> None:
    """Raise UsageError where no prediction has a confidence. **Pure.**"""
    if min_confidence is None:
        return
    if not isinstance(task, Classification | MultiLabel):
        raise UsageError(
            FLAG,
            f"the model predicts {task.describe()}: a confidence is known of classes and of several labels only",
            legal="a model that gives a row a class, or labels",
            todo="leave it out",
        )
    if isinstance(task, MultiLabel) and top_k is not None:
        raise UsageError(
            f"{FLAG} --top_k", "a row is sure if all its labels are, and top_k leaves some out", legal="one of them"
        )


def confidence(rows: pa.RecordBatch, task: Task, top_k: int | None = None) -> np.ndarray:
    """Return how sure each predicted row is, float32 [N]; NaN for a row without a prediction. **Pure.**

    Of one class: its probability. Of several labels: the least of what the given ones have, and of what the others lack
    of 1. rows: as they are written.
    """
    if isinstance(task, MultiLabel):
        shares = _numbers(rows, [f"probability_{name}" for name in task.classes])
        given = [set(each or ()) for each in rows.column("labels").to_pylist()]
        is_given = np.array([[name in each for name in task.classes] for each in given]).reshape(shares.shape)
        return np.asarray(np.where(is_given, shares, np.float32(1) - shares).min(axis=1))
    assert isinstance(task, Classification)
    names = [f"probability_{name}" for name in task.classes] if top_k is None else ["probability"]  # the best one's
    return np.asarray(_numbers(rows, names).max(axis=1))


def _numbers(rows: pa.RecordBatch, names: list[str]) -> np.ndarray:
    """Return columns of numbers, float32 [N, columns]; NaN for what is missing."""
    arrays = (pc.fill_null(rows.column(name), float("nan")).to_numpy(zero_copy_only=False) for name in names)
    return np.stack([each.astype(np.float32) for each in arrays], axis=1)


def sure_rows(
    rows: pa.RecordBatch, task: Task, min_confidence: float | None, top_k: int | None = None
) -> pa.RecordBatch:
    """Return the rows that are at least so sure; all for None. **Pure.**

    Compared as float32, as probabilities are written: a row of 0.95 is one of at least 0.95.
    """
    if min_confidence is None:
        return rows
    return rows.filter(pa.array(confidence(rows, task, top_k) >= np.float32(min_confidence)))
