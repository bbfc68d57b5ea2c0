"""Which rows make up a step: a pure function that does not know the world size.

The global batch of step ``t`` depends on ``(seed, epoch, t, number of rows)`` and on nothing else. The position in the
data is therefore one integer, the step, and a resumed run finds its place without replaying anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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


@dataclass(frozen=True)
class DataOrder:
    """The order of the training rows over the whole run."""

    seed: int
    num_rows: int
    global_batch_size: int  # rows per step, over all ranks

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last one takes the rows that are left, however few."""
        return -(-self.num_rows // self.global_batch_size)

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, position within the epoch in rows) at which 0-based ``step`` starts."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return epoch, step_in_epoch * self.global_batch_size

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers of 0-based ``step``, int64 [<= global_batch_size]. O(1) at any step of an epoch."""
        epoch, position = self.place(step)
        return epoch_order(self.seed, epoch, self.num_rows)[position : position + self.global_batch_size]
