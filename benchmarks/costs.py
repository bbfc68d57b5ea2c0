"""What a start, exact mode and saving cost, in pairs: ``benchmarks/costs.py [--rounds 5] [PART ...]``.

The demo's model and rows, two ranks of one thread. ``start``: wall time from the command to the end of the first step,
of Trainer under torchrun and of ringtune under mpirun, and the CPU time of a run of one step by one process, imports
and final model included. ``exact``: a step of exact mode ÷ one of fast mode. ``saving``: what saving every 50 or every
10 steps adds to a run. Every round runs each way once; the table gives the medians of the rounds and their range.
Results go to ``benchmarks/results/costs-PROCESSOR.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speed

STEPS = 150  # of a run that saves
Figures = dict[str, float]


def start(place: Path) -> Figures:
    """Return seconds until the first step is done, of both, and CPU seconds of one process."""
    started = time.time()
    speed.train(place, "first", "ours-fp32")
    ours = (place / "ours-fp32" / "metrics.jsonl").stat().st_mtime - started
    started = time.time()
    speed.measure(place, "first", "trainer-fp32")
    theirs = (place / "trainer" / "first-step").stat().st_mtime - started
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    speed.train(place, "first", "alone-fp32", num_ranks=0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "start ÷ Trainer's": ours / theirs,
        "start s": ours,
        "CPU s of a run of one step": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def exact(place: Path) -> Figures:
    """Return a step's time in both modes."""
    fast = speed.measure(place, "reviews", "ringtune-fp32")
    same = speed.measure(place, "reviews", "ringtune-fp32", ["--mode", "exact", "--num_shards", "2"])
    return {"exact ÷ fast": same["step_s"] / fast["step_s"], "fast step s": fast["step_s"]}


def saving(place: Path) -> Figures:
    """Return how much longer a run takes that saves."""
    seconds = {}
    for every in (0, 50, 10):
        flags = ["--max_steps", str(STEPS), "--logging_steps", str(STEPS)]
        flags += ["--save_strategy", "steps", "--save_steps", str(every), "--save_total_limit", "2"] if every else []
        started = time.perf_counter()
        speed.train(place, "reviews", "saving-fp32", flags)
        seconds[every] = time.perf_counter() - started
    shares = {f"saving every {every} adds, share of a run": seconds[every] / seconds[0] - 1 for every in (50, 10)}
    return {**shares, "run s": seconds[0]}


PARTS: dict[str, Callable[[Path], Figures]] = {"start": start, "exact": exact, "saving": saving}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": speed.run([sys.executable, str(speed.PARTS), "machine"]), "rounds": {}}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "reviews"
        speed.prepare(place, "reviews")
        speed.train(place, "first", "ringtune-fp32")  # tokenises, for all
        for part in options.parts:
            found["rounds"][part] = []
            for number in range(options.rounds):
                found["rounds"][part].append(PARTS[part](place))
                print(f"{part}, round {number + 1}: {json.dumps(found['rounds'][part][-1])}", flush=True)
    path = speed.results_path("costs", found["machine"])
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{table(found['rounds'])}\nwritten to {path}")


def table(rounds: dict[str, list[Figures]]) -> str:
    """Return the figures, as a table of Markdown. **Pure.**"""
    lines = ["| what | median | range |", "| --- | --- | --- |"]
    for several in rounds.values():
        for name in several[0]:
            values = [each[name] for each in several]
            lines.append(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f}-{max(values):.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
