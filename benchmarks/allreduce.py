"""Allreduce of 100 MB on one host by ring, whole and as ringtune sets it, and what it is made of.

``benchmarks/allreduce.py [--rounds 5] [--ranks 2 3]``. Each round runs Open MPI's ring (by the rules between hosts) and
ringtune's ring in segments beside each other. The parts are measured in the same processes: of N ranks, each sends
2(N-1)/N of the message to its neighbour and adds (N-1)/N of it. Results go to
``benchmarks/results/allreduce-PROCESSOR.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speed

MEGABYTES = 100
REPEATS = 15  # of each part in a run; its median counts
RULES = {"whole": "ring.rules", "segments": "ring-one-host.rules"}
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank:
        return as_rank()
    machine = speed.run([sys.executable, str(speed.PARTS), "machine"])
    path = speed.results_path("allreduce", machine)
    for num_ranks in options.ranks:
        rounds = []
        for number in range(options.rounds):
            rounds.append({how: run(num_ranks, rules) for how, rules in RULES.items()})
            print(f"{num_ranks} ranks, round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
        found = speed.keep(path, f"{num_ranks} ranks", {"machine": machine, "megabytes": MEGABYTES, "rounds": rounds})
    print(f"{table(found)}\nwritten to {path}")


def run(num_ranks: int, rules: str) -> Figures:
    """Return the seconds of an allreduce by these rules, and of its parts."""
    file = Path(speed.__file__).resolve().parents[1] / "launch" / rules
    settings = {"coll_tuned_use_dynamic_rules": "1", "coll_tuned_dynamic_rules_filename": str(file)}
    words = [word for name, value in settings.items() for word in ("--mca", name, value)]
    command = ["mpirun", "-np", str(num_ranks), "--bind-to", "none", *words, sys.executable, __file__, "--as-rank"]
    return speed.run(command)


def as_rank() -> None:
    """Measure as one of the ranks; the first one prints."""
    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    values = np.ones(MEGABYTES * 250_000, dtype=np.float32)
    total = np.zeros_like(values)
    share = values.size // comm.size
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size

    def send() -> None:
        comm.Sendrecv(values[:share], right, recvbuf=total[:share], source=left)

    acts: dict[str, Callable[[], object]] = {
        "allreduce": lambda: comm.Allreduce(MPI.IN_PLACE, total),  # in place, as Horovod does
        "sending a share": send,
        "adding a share": lambda: np.add(values[:share], total[:share], out=total[:share]),
        "copying a share": lambda: np.copyto(total[:share], values[:share]),
    }
    found = {name: median_time(comm, act) for name, act in acts.items()}
    if comm.rank == 0:
        print(json.dumps(found))


def median_time(comm: Any, act: Callable[[], object]) -> float:
    """Return the median over repeats of the time of the slowest rank, s, after three to warm up."""
    from mpi4py import MPI

    times = []
    for _ in range(REPEATS + 3):
        comm.Barrier()
        started = time.perf_counter()
        act()
        times.append(comm.allreduce(time.perf_counter() - started, op=MPI.MAX))
    return statistics.median(times[3:])


def table(found: dict[str, dict[str, list[dict[str, Figures]]]]) -> str:
    """Return times in ms and ratios, as a table of Markdown. **Pure.**"""
    lines = [
        "| ranks | whole, ms | in segments, ms | ratio | its parts alone, ms | a share: sent, added, copied, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, facts in found.items():
        num_ranks = int(name.split()[0])
        rounds = facts["rounds"]
        whole, parted = ([each[how]["allreduce"] * 1e3 for each in rounds] for how in RULES)
        ratios = [one / other for one, other in zip(whole, parted, strict=True)]
        send, add, copy = (
            statistics.median(each["segments"][part] for each in rounds) * 1e3
            for part in ("sending a share", "adding a share", "copying a share")
        )
        alone = (num_ranks - 1) * (2 * send + add)
        lines.append(
            f"| {num_ranks} | {statistics.median(whole):.1f} | {statistics.median(parted):.1f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {alone:.1f} "
            f"| {send:.1f}, {add:.1f}, {copy:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
