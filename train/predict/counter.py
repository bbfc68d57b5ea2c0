"""One counter for all ranks: it gives each number once, to the thread that asks next. A slow rank asks less often.

Over MPI the number lies in rank 0's memory and is fetched and raised in one one-sided operation (MPI 4.1, section
12.3.4). Gloo has none; there the ranks exchange in rounds how many numbers they want, and all compute the same deal.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested


class Counter(Protocol):
    """Deals 0, 1, 2, ... to the threads of all ranks."""

    every_s: float  # seconds between two rounds of ``wanted`` and ``deal``

    def take(self) -> int:
        """Return the next number that nobody had. Raises StopRequested where it has to wait and a stop is asked for."""
        ...

    def wanted(self) -> int:
        """Return how many numbers this rank waits for."""
        ...

    def deal(self, wanted: Sequence[int]) -> None:
        """Take note of how many numbers each rank waits for. The ranks call it in step, with the same argument."""
        ...

    def close(self) -> None:
        """Give no number any more, and return when no thread is asking for one: MPI may end after that.

        A thread that asks later gets StopRequested.
        """
        ...


def open_counter(comm: Comm, should_stop: Callable[[], bool]) -> Counter:
    """Return the job's counter, at 0. **Collective.**"""
    if comm.size == 1:
        return LocalCounter()
    return MpiCounter() if comm.runs_over_mpi else DealtCounter(comm.rank, should_stop)


class LocalCounter:
    """The counter of a job of one rank."""

    every_s = 0.2

    def __init__(self) -> None:
        self.number = -1
        self.lock = threading.Lock()
        self.closed = False

    def take(self) -> int:
        """Return the next number."""
        with self.lock:
            if self.closed:
                raise StopRequested
            return self._next()

    def _next(self) -> int:
        self.number += 1
        return self.number

    def wanted(self) -> int:
        """Return 0: nobody waits."""
        return 0

    def deal(self, wanted: Sequence[int]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Give no number any more."""
        with self.lock:
            self.closed = True


class MpiCounter(LocalCounter):
    """A number in rank 0's memory."""

    def __init__(self) -> None:
        from mpi4py import MPI

        super().__init__()
        self.mpi, world = MPI, MPI.COMM_WORLD
        item = MPI.INT64_T.Get_size()
        self.window = MPI.Win.Allocate(item if world.rank == 0 else 0, disp_unit=item, comm=world)
        if world.rank == 0:
            self.window.Lock(0)
            self.window.Put(np.zeros(1, dtype=np.int64), 0)
            self.window.Unlock(0)
        world.Barrier()

    def _next(self) -> int:
        """Fetch the number and raise it by one, whatever rank 0 is doing.

        The caller holds the lock: a process locks a window once at a time.
        """
        one, found = np.ones(1, dtype=np.int64), np.empty(1, dtype=np.int64)
        self.window.Lock(0, self.mpi.LOCK_SHARED)
        self.window.Fetch_and_op(one, found, 0, op=self.mpi.SUM)
        self.window.Unlock(0)
        return int(found[0])


class DealtCounter:
    """Numbers dealt in rounds: in each, rank 0's wants are served first, then rank 1's, and so on."""

    every_s = 0.02  # a thread waits half of it on average; a chunk takes a second

    def __init__(self, rank: int, should_stop: Callable[[], bool]) -> None:
        self.rank, self.should_stop = rank, should_stop
        self.next = 0  # the same on every rank
        self.waiting = 0  # threads of this rank without a number
        self.mine: deque[int] = deque()
        self.changed = threading.Condition()
        self.closed = False

    def take(self) -> int:
        """Wait for a round and return a number of it."""
        with self.changed:
            self.waiting += 1
            while not self.mine:
                if self.closed or self.should_stop():
                    raise StopRequested
                self.changed.wait(timeout=0.1)
            self.waiting -= 1
            return self.mine.popleft()

    def wanted(self) -> int:
        """Return how many threads wait and have no number yet."""
        with self.changed:
            return self.waiting - len(self.mine)

    def deal(self, wanted: Sequence[int]) -> None:
        """Serve all ranks, in the order of the ranks."""
        first = self.next + sum(wanted[: self.rank])
        self.next += sum(wanted)
        with self.changed:
            self.mine.extend(range(first, first + wanted[self.rank]))
            self.changed.notify_all()

    def close(self) -> None:
        """Give no number any more."""
        with self.changed:
            self.closed = True
            self.mine.clear()
            self.changed.notify_all()
