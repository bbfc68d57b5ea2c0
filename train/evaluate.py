"""Evaluation whose result does not depend on who computes it: not on the ranks, nor on their threads.

Batches are planned by a pure function of the rows' lengths; ranks take whole batches in turn, without padding rows, and
compute each with one thread; the outputs come back with their numbers and every score is computed from all rows in
their own order. ``ringtune-predict`` plans and computes with the same functions, so its scores are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from ringtune.train import chunks, measures
from ringtune.train.attention import packer_of
from ringtune.train.batches import on_device
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested
from ringtune.train.device import name_out_of_memory
from ringtune.train.measures import Measure
from ringtune.train.step import Precision
from ringtune.train.task import Task
from ringtune.train.tokens import Features, term_places
from torch import nn

LOWER = "lower --per_device_eval_batch_size or --max_seq_length"
BATCHES_BETWEEN_STOP_CHECKS = 16  # how many a rank computes before the ranks ask each other whether to stop


def plan_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return batches of row numbers, each within one chunk of rows. **Pure.**

    lengths: int [num_rows], tokens.
    """
    return [
        rows.start + batch for rows in chunks.slices(len(lengths)) for batch in plan_chunk(lengths[rows], batch_tokens)
    ]


def plan_chunk(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return batches of row numbers of one chunk, rows of like length together, longest first. **Pure.**

    lengths: int [num_rows], tokens. A batch takes what fits into ``batch_tokens`` after padding, no row that would be
    padded by more than a quarter of its own length, and at least one row.
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


def outputs_of(
    model: nn.Module, task: Task, features: Features, chosen: np.ndarray, precision: Precision
) -> torch.Tensor:
    """Return the outputs for the terms of a batch of features, float32 [terms, W] on the CPU. W: `Task.width`."""
    packer = packer_of(model, precision.device, precision.autocast)
    collated = task.collate(features, chosen, seed=0)
    batch = on_device(collated, packer, precision.device, features.feature_columns)
    with torch.inference_mode(), precision.context():
        return task.outputs(model(**task.inputs(batch)), batch).cpu()


@dataclass(frozen=True)
class Predictions:
    """The outputs for the terms of all features of a table, in their order."""

    outputs: np.ndarray  # float32 [terms, W]
    labels: np.ndarray | None  # [terms, ...], of `Task.targets`; None for rows without labels

    row_of: np.ndarray  # int64 [terms]: the row of each

    def scores(self, task: Task, named: Mapping[str, Measure], rows: np.ndarray | None = None) -> dict[str, float]:
        """Return the scores against the labels, and the number of rows; nothing if there is none.

        named: of `measures.choose`. rows: numbers of the rows that count; None: all.
        """
        assert self.labels is not None
        outputs, labels = self.outputs, self.labels
        if rows is not None:
            chosen = np.isin(self.row_of, rows)
            outputs, labels = outputs[chosen], labels[chosen]
        found = task.scores([(outputs, labels)])
        if found is None:
            return {}
        return {**found.values, **measures.values(named, task, outputs, labels), "num_rows": found.num_rows}


def predict_features(
    model: nn.Module,
    task: Task,
    features: Features,
    comm: Comm,
    precision: Precision,
    batch_tokens: int,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Return the outputs for all features, on every rank. **Collective.**

    progress: called with the number of features done. Raises StopRequested on every rank when a stop is requested.
    """
    batches = plan_batches(features.lengths, batch_tokens)
    mine = batches[comm.rank :: comm.size]
    most = len(batches[:: comm.size])  # of any rank: all ask equally often
    num_done = np.cumsum([len(each) for each in batches])
    outputs: list[torch.Tensor] = [torch.empty(0, task.width)]
    model.eval()
    with worker_threads(torch.get_num_threads() if precision.device.type == "cpu" else 1) as pool:
        for start in range(0, most, BATCHES_BETWEEN_STOP_CHECKS):
            if comm.any(stop_requested(), "evaluate/stop"):
                raise StopRequested
            several = mine[start : start + BATCHES_BETWEEN_STOP_CHECKS]
            with name_out_of_memory(lambda: "a batch of the evaluation", precision.device, LOWER):
                outputs += pool.map(lambda batch: outputs_of(model, task, features, batch, precision), several)
            progress(int(num_done[min((start + BATCHES_BETWEEN_STOP_CHECKS) * comm.size, len(batches)) - 1]))
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *mine])
    all_numbers = comm.gather(torch.from_numpy(numbers), "evaluate/features").numpy()
    all_outputs = comm.gather(torch.cat(outputs), "evaluate/outputs").numpy()
    in_order = np.empty_like(all_outputs)
    in_order[term_places(features.num_terms, all_numbers)] = all_outputs
    return Predictions(in_order, task.targets(features), np.repeat(features.row_of, features.num_terms))
