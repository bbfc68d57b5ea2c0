"""The only module that imports Horovod: its collectives, without their traps.

Every collective is named, because Horovod pairs operations of different ranks by name. Model state is never sent: all
ranks read it from the same files.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from ringtune.train.contract import (
    EXIT_FAILED,
    EXIT_USAGE,
    SIZE_VARIABLES,
    TORCH_SIZE,
    StopRequested,
    UsageError,
    as_usage,
    first_integer,
    promised_size,
)
from ringtune.train.stop import StopFlag

T = TypeVar("T")
POLL_EVERY_S = 0.005
STALL_LIMIT_S = 7200


class PeerFailed(Exception):
    """Another rank failed and reports it; this one ends silently, with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Comm:
    """The ranks of the job. Start one per process and close it."""

    def __init__(self, *, timeline: bool = False) -> None:
        """timeline: whether `start_timeline` will be called."""
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError

        self.hvd, self.Broken = hvd, HorovodInternalError
        # By default Horovod waits for ever for a rank that hangs. Long work is done in `work_together`, where the ranks
        # keep in contact; of everything else they wait for, the slowest are an evaluation and the writing of a
        # checkpoint.
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", str(STALL_LIMIT_S))
        # Open MPI spins while it waits. Horovod's thread waits, every millisecond, on the core that its rank computes
        # on: let it yield (the README's demo, two ranks on two cores: 127 samples/s instead of 83).
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
        # A collective of GPU tensors ends for the host when it is enqueued; the GPU's own stream waits for it by an
        # event. (Horovod 0.28.1, gpu_operations.cc. It holds for work on the default stream, as all here is.)
        os.environ.setdefault("HOROVOD_ENABLE_ASYNC_COMPLETION", "1")
        # Only a Horovod that is told so before it starts records when it is asked to. A file that the user names
        # is written from the start, and stays the user's.
        if timeline:
            os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")
        self.records = timeline and os.environ["HOROVOD_TIMELINE"] == "DYNAMIC"
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.cross_rank = hvd.cross_rank()
        self.runs_over_mpi = bool(hvd.mpi_enabled())
        self.has_nccl = bool(hvd.nccl_built())
        self.sums_on_host = False  # whether what lies on a GPU is summed through host memory
        self.reports_error = self.rank == 0  # whether this rank prints the error that ends the job
        _require_size(self.size, os.environ)

    # Tensors: those of a GPU in sums and maxima only, which NCCL carries without a copy to the host

    def add_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start summing a tensor over the ranks in place. **Collective.** Finish it with `wait`."""
        if self.sums_on_host and tensor.is_cuda:
            return _OnHost(tensor, self.hvd.allreduce_async_(tensor.cpu(), op=self.hvd.Sum, name=name))
        return self.hvd.allreduce_async_(tensor, op=self.hvd.Sum, name=name)

    def wait(self, handle: Any) -> torch.Tensor:
        """Finish an operation started by one of the ``_async`` methods and return its tensor.

        Of a GPU's tensor, what is computed next on the GPU waits for the sum, and the host does not.
        """
        if isinstance(handle, _OnHost):
            return handle.tensor.copy_(self.hvd.synchronize(handle.handle))
        found = self.hvd.synchronize(handle)
        return found[0] if isinstance(found, tuple) else found  # of parts that were dealt, also their number by rank

    def is_done(self, handle: Any) -> bool:
        """Return whether an operation has ended, or of a GPU's tensor, whether it is enqueued."""
        return self.hvd.poll(handle.handle if isinstance(handle, _OnHost) else handle)

    def maximum_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start finding the element-wise maximum over the ranks, in place. **Collective.** Finish it with `wait`."""
        if self.sums_on_host and tensor.is_cuda:
            return _OnHost(tensor, self.hvd.allreduce_async_(tensor.cpu(), op=self.hvd.Max, name=name))
        return self.hvd.allreduce_async_(tensor, op=self.hvd.Max, name=name)

    def maximum(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return the element-wise maximum over the ranks. **Collective.**"""
        return self.wait(self.maximum_async(tensor.clone(), name))

    def gather_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start gathering tensors of the host that may differ in their first dimension. **Collective.**"""
        if tensor.device.type != "cpu":
            raise ValueError(f"{name}: a tensor on {tensor.device} would be copied to the host behind one's back")
        return self.hvd.allgather_async(tensor.contiguous(), name=name)

    def deal_async(self, tensor: torch.Tensor, name: str) -> Any:
        """Start sending each rank its part of the first dimension, of the host's memory. **Collective.**

        What `wait` gives are the parts that the ranks have for this one, in rank order.
        """
        return self.hvd.alltoall_async(tensor, name=name)

    def gather(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return the ranks' tensors joined along the first dimension, in rank order. **Collective.**"""
        return self.wait(self.gather_async(tensor, name))

    def gather_without_spinning(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return what `gather` does, some milliseconds later, without taking a core while it waits. **Collective.**

        Horovod 0.28.1 waits for an operation by polling every 100 ns, which takes a core.
        """
        handle = self.gather_async(tensor, name)
        while not self.hvd.poll(handle):
            time.sleep(POLL_EVERY_S)
        return self.wait(handle)

    # Small objects

    def share(self, value: T | None, name: str) -> T:
        """Return rank 0's value on every rank; what the others pass is ignored. **Collective.**

        For small objects only: they are pickled, at 66 ms/MB.
        """
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
        stop: StopFlag,
        name: str,
        *,
        meanwhile: Callable[[], None] = lambda: None,
        every_s: float = 0.2,
    ) -> T:
        """Run ``work`` on every rank and return its value, or leave on every rank. **Collective.**

        The work runs in a thread, however long it takes, while the ranks exchange their states every ``every_s``
        seconds. If some fail, all leave: the first of them with its error, the others with PeerFailed. If a stop is
        requested on one, ``stop``, which the work checks, is set on all, and all raise StopRequested. ``meanwhile``
        runs on all ranks after each exchange but the last, and may be collective.
        """
        future = _in_thread(work, name)
        while True:
            wait([future], timeout=every_s)
            busy = not future.done()
            error = None if busy else future.exception()
            was_stopped = isinstance(error, StopRequested)
            code = _exit_code(None if was_stopped else error)
            mine = torch.tensor([[int(busy), code, int(stop.is_set() or was_stopped)]])
            everyone = self.gather_without_spinning(mine, name)
            if everyone[:, 2].any():
                stop.set()
            failed = everyone[:, 1].nonzero().flatten().tolist()
            if failed:
                self.reports_error = failed[0] == self.rank
                if self.reports_error and error is not None:
                    raise error
                raise PeerFailed(int(everyone[failed[0], 1]))
            if not everyone[:, 0].any():
                if stop.is_set():
                    raise StopRequested
                return future.result()
            meanwhile()

    def on_rank_0(self, work: Callable[[], T], stop: StopFlag, name: str) -> T:
        """Run ``work`` on rank 0 and return its value on every rank, or leave on every rank. **Collective.**

        For small values only. Errors and stops as in `work_together`.
        """
        found = self.work_together(lambda: work() if self.rank == 0 else None, stop, name)
        return self.share(found, f"{name}/value")

    # What Horovod does, recorded

    def start_timeline(self, path: Path) -> None:
        """Record what Horovod does from now on in a file, on rank 0; elsewhere there is none."""
        if self.records and self.rank == 0:
            self.hvd.start_timeline(str(path))

    def stop_timeline(self) -> None:
        """Finish the file of `start_timeline`."""
        if self.records and self.rank == 0:
            self.hvd.stop_timeline()

    def close(self) -> None:
        """Leave the job in step with the other ranks. **Collective.**"""
        self.hvd.shutdown()


@dataclass(frozen=True)
class _OnHost:
    """A sum under way in host memory, and the GPU's tensor that gets it."""

    tensor: torch.Tensor
    handle: Any


def _in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Start work in a daemon thread: a process that ends must not wait for one that hangs, as an executor's would."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised again in the main thread
            future.set_exception(as_usage(error))

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


def _require_size(size: int, environ: Mapping[str, str]) -> None:
    """Raise UsageError if the launcher started another number of processes than Horovod found."""
    promised = promised_size(environ)
    if promised == size:
        return
    if first_integer(SIZE_VARIABLES, environ) is None:
        raise UsageError(
            "launch",
            f"{TORCH_SIZE} is {promised}, as under torchrun or accelerate launch, but Horovod found {size}; "
            "each would train alone",
            legal="horovodrun, mpirun, srun or ringtune-launch",
            todo=f"start with one of them; unset {TORCH_SIZE} if it is left over",
        )
    raise UsageError(
        "launch",
        f"the launcher promised {promised} ranks but Horovod found {size}; each would train alone",
        legal="srun needs an MPI plugin that fits this Open MPI",
        todo="use horovodrun, mpirun or ringtune-launch",
    )
