"""The batches of a step on its device. While a GPU computes, the host builds the next one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from ringtune.train.order import derive_seed
from ringtune.train.packing import Packer, Packing
from ringtune.train.task import Task
from ringtune.train.tokens import Features

Batch = dict[str, Any]  # tensors by name, and the packing of a packed one


class Batches:
    """Builds the batch of each shard: collated, packed if the model takes packed rows, in the memory of the device.

    A GPU is given its work ahead of time, so the batch of the next shard is built while it computes. The first one of a
    step is built at the end of the step before, by `prepare`.
    """

    def __init__(self, task: Task, features: Features, packer: Packer | None, device: torch.device, seed: int) -> None:
        self.task, self.features, self.packer, self.device, self.seed = task, features, packer, device, seed
        self.prepared: tuple[int, int, Batch] | None = None  # step, shard, its batch

    def get(self, step: int, shard: int, chosen: np.ndarray) -> Batch:
        """Return the batch of a shard. step: 1-based. chosen: feature numbers."""
        prepared, self.prepared = self.prepared, None
        if prepared is not None and prepared[:2] == (step, shard):
            return prepared[2]
        return self._build(step, chosen)

    def prepare(self, step: int, shard: int, chosen: np.ndarray) -> None:
        """Build a batch that `get` will be asked for next."""
        self.prepared = step, shard, self._build(step, chosen)

    def _build(self, step: int, chosen: np.ndarray) -> Batch:
        # Not of the shard: what is drawn for a feature is the same on whatever rank it is computed.
        batch = self.task.collate(self.features, chosen, derive_seed("collate", self.seed, step))
        return on_device(batch, self.packer, self.device, self.features.feature_columns)


def on_device(
    batch: Mapping[str, torch.Tensor], packer: Packer | None, device: torch.device, of_rows: Collection[str] = ()
) -> Batch:
    """Return a padded batch of the host in the memory of a device, packed if there is a packer.

    of_rows: names of what there is for each row, not for each token.
    """

    def move(each: torch.Tensor) -> torch.Tensor:
        # From pinned memory the copy runs beside what the GPU computes (PyTorch: "CUDA semantics").
        return each.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else each

    ready: Mapping[str, Any] = batch if packer is None else packer.pack(batch, of_rows)
    return {name: each.moved(move) if isinstance(each, Packing) else move(each) for name, each in ready.items()}
