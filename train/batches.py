"""The batches of a step on its device. While a GPU computes, the host builds the next one."""

from __future__ import annotations

import numpy as np
import torch
from ringtune.train import masks
from ringtune.train.order import derive_seed
from ringtune.train.task import Task
from ringtune.train.tokens import Features


class Batches:
    """Builds the batch of each shard: collated, its mask made, in the memory of the device.

    A GPU is given its work ahead of time, so the batch of the next shard is built while it computes. The first one of a
    step is built at the end of the step before, by `prepare`.
    """

    def __init__(self, task: Task, features: Features, device: torch.device, seed: int, *, known_masks: bool) -> None:
        """known_masks: whether the model takes those of `masks`."""
        self.task, self.features, self.device, self.seed = task, features, device, seed
        self.known_masks = known_masks
        self.prepared: tuple[int, int, dict[str, torch.Tensor]] | None = None  # step, shard, its batch

    def get(self, step: int, shard: int, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the batch of a shard, [B, T] and so on. step: 1-based. chosen: feature numbers."""
        prepared, self.prepared = self.prepared, None
        if prepared is not None and prepared[:2] == (step, shard):
            return prepared[2]
        return self._build(step, shard, chosen)

    def prepare(self, step: int, shard: int, chosen: np.ndarray) -> None:
        """Build a batch that `get` will be asked for next."""
        self.prepared = step, shard, self._build(step, shard, chosen)

    def _build(self, step: int, shard: int, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        batch = self.task.collate(self.features, chosen, derive_seed("collate", self.seed, step, shard))
        if self.known_masks:
            batch = masks.known_mask(batch)
        if self.device.type == "cuda":
            # From pinned memory the copy runs beside what the GPU computes (PyTorch: "CUDA semantics").
            batch = {name: each.pin_memory() for name, each in batch.items()}
        return masks.for_every_token({name: each.to(self.device, non_blocking=True) for name, each in batch.items()})
