"""Evaluation whose result does not depend on who computes it: not on the ranks, nor on their threads.

Batches are planned by a pure function of the rows' lengths; ranks take whole batches in turn, without padding rows, and
compute each with one thread; the logits come back with their row numbers and every score is computed from all rows in
their own order. ``ringtune-predict`` plans and computes by the same functions, so its scores are these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from ringtune.train import chunks
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested
from ringtune.train.scores import classification_scores, regression_scores
from ringtune.train.step import Precision
from ringtune.train.tokens import TokenRows, TokenTable
from torch import nn

BATCHES_BETWEEN_QUESTIONS = 16  # how many a rank computes before the ranks ask each other whether to stop


def plan_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return batches of row numbers, each within one chunk of rows. **Pure.**

    lengths: int [num_rows], tokens.
    """
    return [
        rows.start + batch for rows in chunks.slices(len(lengths)) for batch in plan_chunk(lengths[rows], batch_tokens)
    ]


def plan_chunk(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return batches of row numbers of one chunk, rows of like length together, longest first. **Pure.**

    lengths: int [num_rows], tokens. A batch takes what fits into ``batch_tokens`` after padding, no row that would be padded
    by more than a quarter of its own length, and at least one row.
    """
    by_length = np.lexsort((np.arange(len(lengths)), -lengths))
    batches = []
    start = 0
    while start < len(lengths):
        longest = int(lengths[by_length[start]])
        num_alike = int(np.count_nonzero(5 * lengths[by_length[start:]] >= 4 * longest))
        stop = start + max(1, min(num_alike, batch_tokens // max(1, longest)))
        batches.append(by_length[start:stop])
        start = stop
    return batches


@contextmanager
def worker_threads(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that compute one batch each, instead of one batch by all threads.

    How a kernel splits its sums among threads may show in their last bit; a batch that one thread computes has the same
    bits whatever the number of threads beside it.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def logits_of(model: nn.Module, rows: TokenRows, batch: np.ndarray, precision: Precision) -> torch.Tensor:
    """Return the model's logits for a batch of rows, float32 [B, C] on the CPU."""
    tensors = {name: each.to(precision.device) for name, each in rows.batch(batch).items() if name != "labels"}
    with torch.inference_mode(), precision.context():
        return model(**tensors).logits.float().cpu()


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
    batch_tokens: int,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Return the model's logits for all rows, on every rank. **Collective.**

    ``progress`` hears how many rows are done. Raises StopRequested on every rank when one was asked to stop.
    """
    batches = plan_batches(table.lengths, batch_tokens)
    mine = batches[comm.rank :: comm.size]
    most = len(batches[:: comm.size])  # of any rank: all ask equally often
    rows_done = np.cumsum([len(each) for each in batches])
    num_labels = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
    logits: list[torch.Tensor] = [torch.empty(0, num_labels)]
    model.eval()
    with worker_threads(torch.get_num_threads() if precision.device.type == "cpu" else 1) as pool:
        for start in range(0, most, BATCHES_BETWEEN_QUESTIONS):
            if comm.any(stop_requested(), "evaluate/stop"):
                raise StopRequested
            several = mine[start : start + BATCHES_BETWEEN_QUESTIONS]
            logits += pool.map(lambda batch: logits_of(model, table, batch, precision), several)
            progress(int(rows_done[min((start + BATCHES_BETWEEN_QUESTIONS) * comm.size, len(batches)) - 1]))
    rows = np.concatenate([np.empty(0, dtype=np.int64), *mine])
    all_rows = comm.gather(torch.from_numpy(rows), "evaluate/rows").numpy()
    all_logits = comm.gather(torch.cat(logits), "evaluate/logits").numpy()
    return Predictions(all_logits[np.argsort(all_rows)], table.labels)
