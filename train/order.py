"""Which rows make up a step: a pure function that does not know the world size.

The global batch of step ``t`` depends on ``(seed, epoch, t, number of rows)``, with balanced sampling also on the rows'
classes, and on nothing else. The position in the data is therefore one integer, the step, and a resumed run finds its
place without replaying anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and on their order. **Pure**, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    """Return the permutation of ``range(num_rows)`` in which an epoch visits the rows, int64 [num_rows]. **Pure.**

    Philox is counter-based and specified bit by bit, so the order is the same on every platform.
    """
    generator = np.random.Generator(np.random.Philox(derive_seed("order", seed, epoch)))
    order = generator.permutation(num_rows)
    order.setflags(write=False)
    return order


def balanced_order(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """Return as many row numbers as there are labels, of each class as many as of any other, or one more. **Pure.**

    labels: int [num_rows], the class of each row. int64 [num_rows] in a drawn order. Each row of a class comes as often
    as any other of it, or once more: some classes' rows several times, those of the largest not all.
    """
    generator = np.random.Generator(np.random.Philox(derive_seed("balanced", seed, epoch)))
    classes = np.unique(labels)
    # Which classes get the rows that cannot be divided: others in each epoch.
    quotas = np.full(len(classes), len(labels) // len(classes))
    quotas[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    parts = []
    for label, quota in zip(classes.tolist(), quotas.tolist(), strict=True):
        rows = np.flatnonzero(labels == label)
        rounds = [generator.permutation(rows) for _ in range(-(-quota // len(rows)))]
        parts.append(np.concatenate([*rounds, rows[:0]])[:quota])
    return generator.permutation(np.concatenate(parts))


@dataclass(frozen=True)
class DataOrder:
    """The order of the training rows over the whole run."""

    seed: int
    num_rows: int
    global_batch_size: int  # rows per step, over all ranks
    labels: np.ndarray | None = field(default=None, compare=False)  # of the rows, to draw each class as often
    _balanced: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)  # by epoch, the latest

    @property
    def new_per_step(self) -> int:
        """Rows of a step that an epoch visits: all of them."""
        return self.global_batch_size

    @property
    def note(self) -> str:
        """What a user should know of the rows of a step, in words that follow their number."""
        return ""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last one takes the rows that are left, however few."""
        return -(-self.num_rows // self.new_per_step)

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, position within the epoch in rows) at which 0-based ``step`` starts."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return epoch, step_in_epoch * self.new_per_step

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers of 0-based ``step``, int64 [<= global_batch_size]. O(1) at any step of an epoch."""
        epoch, position = self.place(step)
        return self._order(epoch)[position : position + self.new_per_step]

    def _order(self, epoch: int) -> np.ndarray:
        if self.labels is None:
            return epoch_order(self.seed, epoch, self.num_rows)
        if epoch not in self._balanced:
            self._balanced.clear()
            self._balanced[epoch] = balanced_order(self.seed, epoch, self.labels)
        return self._balanced[epoch]
