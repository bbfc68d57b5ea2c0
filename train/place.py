"""Where each rank really runs, and whether that is what one would expect."""

from __future__ import annotations

import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import torch
from ringtune.train.comm import Comm
from ringtune.train.contract import PROMISE_VARIABLE, UsageError, broken_promises, promised_placements
from ringtune.train.stop import StopFlag

ALIKE = ("torch", "horovod", "transformers", "ringtune")  # packages whose versions must be those of rank 0


@dataclass(frozen=True)
class Place:
    """One rank's place in the job."""

    rank: int
    host: str
    local_rank: int
    local_size: int
    device: str  # cpu or cuda:N
    device_id: str  # one GPU's own number, "" for a CPU
    num_cores: int  # CPUs this rank may use
    num_threads: int
    versions: str  # of what must be the same on all hosts
    pid: int

    def __str__(self) -> str:
        return (
            f"rank {self.rank}  host {self.host}  local_rank {self.local_rank} of {self.local_size}  {self.device}  "
            f"{self.num_threads} thread(s) on {self.num_cores} core(s)  {self.versions}  pid {self.pid}"
        )


def threads_of_rank(
    asked: int | None, environ: Mapping[str, str], num_allowed: int, num_cores: int, local_size: int
) -> int:
    """Return how many CPU threads this rank computes with. **Pure.**

    What the user asked for, ``OMP_NUM_THREADS``, or a fair share: of the cores a launcher bound the rank to, all; of a
    host whose ranks are not bound, ``num_cores / local_size``.
    """
    if asked:
        return asked
    if environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(environ["OMP_NUM_THREADS"]))
    is_bound = num_allowed < num_cores
    return num_allowed if is_bound else max(1, num_cores // local_size)


def use_threads(asked: int | None, local_size: int) -> int:
    """Let torch compute with the threads of this rank; return how many."""
    found = threads_of_rank(asked, os.environ, len(os.sched_getaffinity(0)), os.cpu_count() or 1, local_size)
    torch.set_num_threads(found)
    return found


def take_places(comm: Comm, stop: StopFlag, report: Callable[[object], None]) -> torch.device:
    """Choose this rank's device, report every rank's place and check it against what was promised. **Collective.**"""
    device = comm.work_together(lambda: choose_device(comm), stop, "place/device")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and Horovod's streams take the current one
    places = gather_places(comm, device)
    for place in places:
        report(place)
    check_places(places, os.environ.get(PROMISE_VARIABLE))
    return device


def choose_device(comm: Comm) -> torch.device:
    """Return this rank's GPU by its local rank, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if comm.local_rank >= torch.cuda.device_count():
        # One visible GPU per rank is how SLURM binds them: then each rank's own is number 0.
        if torch.cuda.device_count() == 1 and comm.local_size > 1 and os.environ.get("SLURM_JOB_ID"):
            return torch.device("cuda", 0)
        raise UsageError(
            "launch",
            f"local rank {comm.local_rank} has no GPU of its own, only {torch.cuda.device_count()} are visible",
            legal="one GPU per rank",
            todo="start fewer ranks per host",
        )
    return torch.device("cuda", comm.local_rank)


def gather_places(comm: Comm, device: torch.device) -> list[Place]:
    """Return every rank's place. **Collective.**"""
    mine = Place(
        rank=comm.rank,
        host=socket.gethostname(),
        local_rank=comm.local_rank,
        local_size=comm.local_size,
        device=str(device),
        device_id=str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else "",
        num_cores=len(os.sched_getaffinity(0)),
        num_threads=torch.get_num_threads(),
        versions=f"python {platform.python_version()} "
        + " ".join(f"{name} {metadata.version(name)}" for name in ALIKE),
        pid=os.getpid(),
    )
    return comm.gather_values(mine, "place")


def faults(places: Sequence[Place], promise: str | None) -> list[str]:
    """Return what is wrong with the places, a phrase each. **Pure.**

    promise: hosts and ranks as the launcher meant them, ``a:2,b:1``. Hosts are compared by who shares one, because a
    host may know itself by another name than the user does.
    """
    found = []
    for what, key in (("local rank", lambda each: each.local_rank), ("GPU", lambda each: each.device_id)):
        counts = Counter((each.host, key(each)) for each in places if key(each) != "")
        found += [
            f"{count} ranks of host {host} have {what} {value}" for (host, value), count in counts.items() if count > 1
        ]
    for each in places:
        if each.versions != places[0].versions:
            found.append(f"rank {each.rank} (host {each.host}) runs {each.versions}, rank 0 {places[0].versions}")
    if promise:
        found += broken_promises(
            promised_placements(promise), [(each.host, each.local_rank, each.local_size) for each in places]
        )
    return found


def check_places(places: Sequence[Place], promise: str | None) -> None:
    """Raise UsageError, on every rank alike, if the ranks are not where they should be."""
    wrong = faults(places, promise)
    if wrong:
        raise UsageError(
            "launch",
            "; ".join(wrong),
            legal="one placement for each rank, as promised, and the same versions on all hosts",
            todo="check the launcher's hosts and slots, and ringtune-launch doctor",
        )
