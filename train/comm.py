"""The only module that imports Horovod: collectives with the traps taken out.

Every collective is named, because Horovod pairs operations of different ranks by name. Model state never travels: all
ranks read it from the same files.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from ringtune.train.contract import (
    EXIT_FAILED,
    EXIT_USAGE,
    SIZE_VARIABLES,
    StopRequested,
    UsageError,
    as_usage,
    first_integer,
)
from ringtune.train.stop import StopWatch

T = TypeVar("T")
PATIENCE_S = 0.005
STALL_LIMIT_S = 7200


class PeerFailed(Exception):
    """Another rank failed and says why; this one leaves without a word, with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Comm:
    """The ranks of the job. Start one per process and close it."""

    def __init__(self) -> None:
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError

        self.hvd, self.Broken = hvd, HorovodInternalError
        # Horovod waits for ever for a rank that hangs, and a batch job with it. Long work is done in `work_together`, where
        # the ranks keep talking; of what else they wait for, the slowest are a checkpoint's writing and an evaluation.
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", str(STALL_LIMIT_S))
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.cross_rank = hvd.cross_rank()
        self.runs_over_mpi = bool(hvd.mpi_enabled())
        self.speaks = self.rank == 0  # whether this rank prints the error that ends the job
        promised = first_integer(SIZE_VARIABLES, os.environ) or 1
        if promised != self.size:
            raise UsageError(
                "launch",
                f"the launcher promised {promised} ranks but Horovod found {self.size}; each would train alone",
                legal="srun needs an MPI plugin that fits this Open MPI",
                todo="use horovodrun, mpirun or ringtune-launch",
            )

    # Tensors

    def add_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start summing a tensor over the ranks in place. **Collective.** Finish it with `wait`."""
        return self.hvd.allreduce_async_(tensor, op=self.hvd.Sum, name=name)

    def wait(self, handle: Any) -> torch.Tensor:
        """Finish an operation started by one of the ``_async`` methods and return its tensor."""
        return self.hvd.synchronize(handle)

    def maximum(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return the element-wise maximum over the ranks. **Collective.**"""
        return self.hvd.allreduce(tensor, op=self.hvd.Max, name=name)

    def gather_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start gathering tensors that may differ in their first dimension. **Collective.**"""
        return self.hvd.allgather_async(tensor.contiguous(), name=name)

    def gather(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return the ranks' tensors joined along the first dimension, in rank order. **Collective.**"""
        return self.wait(self.gather_async(tensor, name))

    def gather_patiently(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return what `gather` does, some milliseconds later, and leave the core to other threads until then. **Collective.**

        Horovod 0.28.1 waits for an operation by asking every 100 ns whether it is done, which takes a core.
        """
        handle = self.gather_async(tensor, name)
        while not self.hvd.poll(handle):
            time.sleep(PATIENCE_S)
        return self.wait(handle)

    # Small objects

    def share(self, value: T | None, name: str) -> T:
        """Return rank 0's value on every rank; what the others give is ignored. **Collective.** For small objects only (pickled, 66 ms/MB)."""
        # The name is a must: without one, Horovod derives it from the object, which differs by rank, and deadlocks.
        return self.hvd.broadcast_object(value, root_rank=0, name=name)

    def gather_values(self, value: T, name: str) -> list[T]:
        """Return every rank's value, in rank order. **Collective.** For small objects only."""
        return self.hvd.allgather_object(value, name=name)

    # Agreement

    def any(self, flag: bool, name: str) -> bool:
        """Return whether the flag is set on any rank. **Collective.**"""
        return bool(self.maximum(torch.tensor([int(flag)]), name).item())

    def work_together(
        self,
        work: Callable[[], T],
        stop: StopWatch,
        name: str,
        *,
        meanwhile: Callable[[], None] = lambda: None,
        every_s: float = 0.2,
    ) -> T:
        """Run ``work`` on every rank at once and return its value, or leave on every rank at once. **Collective.**

        The ranks compare notes every ``every_s`` seconds while the work runs in a thread, however long it takes: if some
        fail, all leave (the first of them with its error, the others with PeerFailed); if one was asked to stop, all
        set ``stop``, which the work watches, and raise StopRequested. ``meanwhile`` runs on all ranks after each
        comparison that is not the last, in step, and may be collective.
        """
        job = _Job(work, name)
        while True:
            busy = job.still_busy(wait_s=every_s)
            code = job.exit_code()
            notes = torch.tensor([[int(busy), code, int(stop.is_set() or job.stopped())]])
            everyone = self.gather_patiently(notes, name)
            if everyone[:, 2].any():
                stop.set()
            failed = everyone[:, 1].nonzero().flatten().tolist()
            if failed:
                self.speaks = failed[0] == self.rank
                if self.speaks and job.error is not None:
                    raise job.error
                raise PeerFailed(int(everyone[failed[0], 1]))
            if not everyone[:, 0].any():
                if stop.is_set():
                    raise StopRequested
                return job.value
            meanwhile()

    def close(self) -> None:
        """Leave the job in step with the other ranks. **Collective.**"""
        self.hvd.shutdown()


class _Job:
    """One piece of work in a thread of its own, and how it ended."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.work = work
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.value = self.work()
        except BaseException as error:  # carried to the main thread and raised there
            self.error = as_usage(error)

    def still_busy(self, wait_s: float) -> bool:
        self.thread.join(timeout=wait_s)
        return self.thread.is_alive()

    def stopped(self) -> bool:
        return isinstance(self.error, StopRequested)

    def exit_code(self) -> int:
        if self.error is None or self.stopped():
            return 0
        return EXIT_USAGE if isinstance(self.error, UsageError) else EXIT_FAILED
