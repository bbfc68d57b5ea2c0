"""Where each rank really runs, and whether that is what one would expect."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError


@dataclass(frozen=True)
class Place:
    """One rank's place in the job."""

    rank: int
    host: str
    local_rank: int
    device: str
    num_threads: int
    pid: int

    def __str__(self) -> str:
        return (
            f"rank {self.rank}  host {self.host}  local_rank {self.local_rank}  {self.device}  "
            f"{self.num_threads} thread(s)  pid {self.pid}"
        )


def threads_of_rank(
    config: TrainConfig, environ: Mapping[str, str], num_allowed: int, num_cores: int, local_size: int
) -> int:
    """Return how many CPU threads this rank computes with. **Pure.**

    What the user says, ``OMP_NUM_THREADS``, or a fair share: of the cores a launcher bound the rank to, all; of a host
    whose ranks are not bound, ``num_cores / local_size``. In exact mode 1 unless said, because the count is part of the
    sums.
    """
    if config.num_threads:
        return config.num_threads
    if config.mode == "exact":
        return 1
    if environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(environ["OMP_NUM_THREADS"]))
    is_bound = num_allowed < num_cores
    return num_allowed if is_bound else max(1, num_cores // local_size)


def choose_device(comm: Comm) -> torch.device:
    """Return this rank's GPU by its local rank, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if comm.local_rank >= torch.cuda.device_count():
        # One visible GPU per rank is how SLURM binds them: then each rank's own is number 0.
        if torch.cuda.device_count() == 1 and comm.local_size > 1 and os.environ.get("SLURM_JOB_ID"):
            return torch.device("cuda", 0)
        raise UsageError("launch", f"local rank {comm.local_rank} has no GPU of its own, only "
                         f"{torch.cuda.device_count()} are visible", "one GPU per rank", "start fewer ranks per host")  # fmt: skip
    return torch.device("cuda", comm.local_rank)


def gather_places(comm: Comm, device: torch.device) -> list[Place]:
    """Return every rank's place. **Collective.** Raises UsageError if two ranks share a local rank on one host."""
    mine = Place(comm.rank, socket.gethostname(), comm.local_rank, str(device), torch.get_num_threads(), os.getpid())
    places = comm.gather_values(mine, "place")
    seats = Counter((each.host, each.local_rank) for each in places)
    for (host, local_rank), count in seats.items():
        if count > 1:
            raise UsageError("launch", f"{count} ranks of host {host} have local rank {local_rank}",
                             "one local rank each", "check the launcher's hosts and slots")  # fmt: skip
    return places
