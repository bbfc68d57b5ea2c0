"""Measure latency and bandwidth between hosts: ``python -m ringtune.launch.links``, one rank per host, under MPI.

Rank 0 prints one JSON object. The ring-allreduce is Open MPI's with the algorithm that training gets; the links are
measured one pair of ring neighbours at a time, so that the slow one can be named.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI

SIZES = tuple(4096 * 4**power for power in range(9))  # 4 KiB to 256 MiB
LINK_BYTES = 8 << 20
SECONDS_PER_SIZE = 0.5
MOST_ROUNDS = 50


def main(quick: bool) -> None:
    """Measure and print. **Collective.**"""
    world = MPI.COMM_WORLD
    sizes = [size for size in SIZES if size <= 1 << 20] if quick else list(SIZES)
    result = {
        "links": [
            _link(world, rank, (rank + 1) % world.size)
            for rank in range(world.size if world.size > 2 else world.size - 1)
        ],
        "allreduce": [{"bytes": size, "seconds": _allreduce(world, size)} for size in sizes],
    }
    if world.rank == 0:
        json.dump(result, sys.stdout)
        sys.stdout.flush()


def _link(world: MPI.Comm, first: int, second: int) -> dict[str, float]:
    """Return half a round trip (s) and the bandwidth (bytes/s) between two ranks; the others wait."""
    small, large = np.zeros(1, np.uint8), np.zeros(LINK_BYTES, np.uint8)
    answer = {"first": first, "second": second, "latency": 0.0, "bandwidth": 0.0}
    if world.rank in (first, second):
        other = second if world.rank == first else first
        answer["latency"] = statistics.median(_round_trips(world, small, other, world.rank == first, rounds=50)) / 2
        # The shortest time is the link's own; the rest of a longer one is other load on the hosts.
        answer["bandwidth"] = 2 * LINK_BYTES / min(_round_trips(world, large, other, world.rank == first, rounds=8))
    _wait_for_all(world)
    return world.bcast(answer, root=first)


def _wait_for_all(world: MPI.Comm) -> None:
    """Wait for all ranks without the busy loop of MPI's own barrier: hosts may share cores with the measured pair."""
    barrier = world.Ibarrier()
    while not barrier.Test():
        time.sleep(0.001)


def _round_trips(world: MPI.Comm, data: np.ndarray, other: int, leads: bool, rounds: int) -> list[float]:
    """Return the times of sending data there and back, in seconds.

    Without the first, which includes opening the connection.
    """
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        if leads:
            world.Send(data, other)
            world.Recv(data, other)
        else:
            world.Recv(data, other)
            world.Send(data, other)
        times.append(time.perf_counter() - started)
    return times[1:]


def _allreduce(world: MPI.Comm, size: int) -> float:
    """Return the median time of summing ``size`` bytes of fp32 over all ranks, in seconds.

    The time of a round is that of its slowest rank.
    """
    data = np.zeros(size // 4, np.float32)
    times: list[float] = []
    began = time.perf_counter()
    while True:
        world.Barrier()
        started = time.perf_counter()
        world.Allreduce(MPI.IN_PLACE, data)
        times.append(world.allreduce(time.perf_counter() - started, op=MPI.MAX))
        enough = len(times) >= MOST_ROUNDS or (len(times) >= 3 and time.perf_counter() - began > SECONDS_PER_SIZE)
        if world.bcast(enough):
            return statistics.median(times[1:])


if __name__ == "__main__":
    main("--quick" in sys.argv)
