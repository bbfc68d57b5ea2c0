"""Evaluation whose result does not depend on the number of ranks.

Batches are planned by a pure function of the rows' lengths; ranks take whole batches in turn, without padding rows; the
logits come back with their row numbers and every score is computed from all rows in their own order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested
from ringtune.train.scores import classification_scores, regression_scores
from ringtune.train.step import Precision
from ringtune.train.tokens import TokenTable
from torch import nn

ROUNDS_BETWEEN_QUESTIONS = 8  # how often the ranks ask each other whether to stop


def plan_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return batches of row numbers, rows of like length together, longest first. **Pure.**"""
    by_length = np.lexsort((np.arange(len(lengths)), -lengths))
    return [by_length[start : start + batch_size] for start in range(0, len(lengths), batch_size)]


@dataclass(frozen=True)
class Predictions:
    """What the model says of every row of a table, in the order of the rows."""

    logits: np.ndarray  # float32 [num_rows, num_labels]
    labels: np.ndarray | None  # int64 or float32 [num_rows]; None for rows without labels

    def scores(self) -> dict[str, float]:
        """Return the scores against the labels, and the number of rows."""
        assert self.labels is not None
        compute = regression_scores if np.issubdtype(self.labels.dtype, np.floating) else classification_scores
        return {**compute(self.logits, self.labels), "num_rows": len(self.labels)}


def predict_table(
    model: nn.Module,
    table: TokenTable,
    comm: Comm,
    precision: Precision,
    batch_size: int,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Return the model's logits for all rows, on every rank. **Collective.**

    Raises StopRequested on every rank when one was asked to stop.
    """
    batches = plan_batches(table.lengths, batch_size)
    num_labels = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
    rows: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    logits: list[torch.Tensor] = [torch.empty(0, num_labels)]
    model.eval()
    for round_number, start in enumerate(range(0, len(batches), comm.size)):
        if round_number % ROUNDS_BETWEEN_QUESTIONS == 0 and comm.any(stop_requested(), "evaluate/stop"):
            raise StopRequested
        for batch_rows in batches[start + comm.rank : start + comm.rank + 1]:  # none for some ranks in the last round
            batch = {name: each.to(precision.device) for name, each in table.batch(batch_rows).items()}
            batch.pop("labels", None)
            with torch.inference_mode(), precision.context():
                logits.append(model(**batch).logits.float().cpu())
            rows.append(np.asarray(batch_rows, dtype=np.int64))
        progress(min(start + comm.size, len(batches)))
    all_rows = comm.gather(torch.from_numpy(np.concatenate(rows)), "evaluate/rows").numpy()
    all_logits = comm.gather(torch.cat(logits), "evaluate/logits").numpy()
    return Predictions(all_logits[np.argsort(all_rows)], table.labels)
