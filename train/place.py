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
from ringtune.train.device import choose_device, device_id, require_nccl
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
    device_name: str  # of a GPU, "" for a CPU
    num_gpus: int  # GPUs that this rank sees
    remark: str  # why it computes on the CPU, if one might expect otherwise
    num_cores: int  # CPUs this rank may use
    num_threads: int
    versions: str  # of what must be the same on all hosts
    pid: int

    def __str__(self) -> str:
        gpu = f"{self.device_name}  " if self.device_name else ""
        return (
            f"rank {self.rank}  host {self.host}  local_rank {self.local_rank} of {self.local_size}  {self.device}  "
            f"{gpu}{self.num_threads} thread(s) on {self.num_cores} core(s)  {self.versions}  pid {self.pid}"
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


def take_places(
    comm: Comm,
    stop: StopFlag,
    report: Callable[[object], None],
    *,
    use_cpu: bool,
    share_gpus: bool = False,
    sums: bool = True,
) -> torch.device:
    """Choose this rank's device, report every rank's place and check it against what was promised. **Collective.**

    use_cpu, share_gpus: as the user set them. sums: whether tensors of the device will be summed over the ranks.
    """
    remarks: list[str] = []

    def choose() -> torch.device:
        if sums and torch.cuda.is_available() and not (use_cpu or share_gpus):
            require_nccl(comm)
        return choose_device(comm, use_cpu=use_cpu, share_gpus=share_gpus, report=remarks.append)

    device = comm.work_together(choose, stop, "place/device")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and Horovod's streams take the current one
    comm.sums_on_host = share_gpus
    places = gather_places(comm, device, " ".join(remarks))
    for each in [*places, *remarks_on(places)]:
        report(each)
    check_places(places, os.environ.get(PROMISE_VARIABLE), share_gpus=share_gpus)
    return device


def gather_places(comm: Comm, device: torch.device, remark: str) -> list[Place]:
    """Return every rank's place. **Collective.**"""
    on_gpu = device.type == "cuda"
    mine = Place(
        rank=comm.rank,
        host=socket.gethostname(),
        local_rank=comm.local_rank,
        local_size=comm.local_size,
        device=str(device),
        device_id=device_id(device, os.environ),
        device_name=torch.cuda.get_device_name(device) if on_gpu else "",
        num_gpus=torch.cuda.device_count() if on_gpu else 0,
        remark=remark,
        num_cores=len(os.sched_getaffinity(0)),
        num_threads=torch.get_num_threads(),
        versions=f"python {platform.python_version()} "
        + " ".join(f"{name} {metadata.version(name)}" for name in ALIKE),
        pid=os.getpid(),
    )
    return comm.gather_values(mine, "place")


def remarks_on(places: Sequence[Place]) -> list[str]:
    """Return what a user may not expect of the places, though the run is right: a line each. **Pure.**"""
    lines = []
    for host in dict.fromkeys(each.host for each in places):
        here = [each for each in places if each.host == host]
        lines += [f"host {host}: {remark}" for remark in dict.fromkeys(each.remark for each in here) if remark]
        num_used, num_seen = len({each.device_id for each in here}), max(each.num_gpus for each in here)
        if num_used < num_seen:
            lines.append(f"host {host}: {num_seen} GPUs are visible, {num_used} used; one rank for each uses all")
    names = sorted({each.device_name for each in places if each.device_name})
    if len(names) > 1:
        lines.append(f"the GPUs differ ({', '.join(names)}): the slowest sets the pace, and exact mode needs one kind")
    return lines


def faults(places: Sequence[Place], promise: str | None, *, share_gpus: bool = False) -> list[str]:
    """Return what is wrong with the places, a phrase each. **Pure.**

    promise: hosts and ranks as the launcher meant them, ``a:2,b:1``. Hosts are compared by who shares one, because a
    host may know itself by another name than the user does.
    """
    found = []
    keys: dict[str, Callable[[Place], object]] = {"local rank": lambda each: each.local_rank}
    if not share_gpus:
        keys["GPU"] = lambda each: each.device_id
    for what, key in keys.items():
        counts = Counter((each.host, key(each)) for each in places if key(each) != "")
        found += [
            f"{count} ranks of host {host} have {what} {value}" for (host, value), count in counts.items() if count > 1
        ]
    for each in places:
        if each.versions != places[0].versions:
            found.append(f"rank {each.rank} (host {each.host}) runs {each.versions}, rank 0 {places[0].versions}")
        if (each.num_gpus > 0) != (places[0].num_gpus > 0):
            found.append(
                f"rank {each.rank} (host {each.host}) computes on {each.device}, rank 0 on {places[0].device}"
                + (f": {each.remark or places[0].remark}" if each.remark or places[0].remark else "")
            )
    if promise:
        found += broken_promises(
            promised_placements(promise), [(each.host, each.local_rank, each.local_size) for each in places]
        )
    return found


def check_places(places: Sequence[Place], promise: str | None, *, share_gpus: bool = False) -> None:
    """Raise UsageError, on every rank alike, if the ranks are not where they should be."""
    wrong = faults(places, promise, share_gpus=share_gpus)
    if wrong:
        raise UsageError(
            "launch",
            "; ".join(wrong),
            legal="one placement and one GPU for each rank, as promised, and the same versions on all hosts",
            todo="check the launcher's hosts and slots, and ringtune-launch doctor",
        )
