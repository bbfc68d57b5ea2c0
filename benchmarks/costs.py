"""What a start, exact mode and saving cost, in pairs: ``benchmarks/costs.py [--rounds 5] [PART ...]``.

The demo's model and rows, two ranks of one thread. ``start``: wall time from the command to the end of the first step,
of Trainer under torchrun and of ringtune under mpirun, and the CPU time of one process until its first step is done.
``exact``: a step of exact mode ÷ one of fast mode. ``saving``: what saving every 50 or every 10 steps adds to a run.
``memory``: the peak of a rank with the demo's rows and with 100 times as many. Every round runs each way once; the
table gives the medians of the rounds and their range. Results go to ``benchmarks/results/costs-PROCESSOR.json``; what
it has of other parts stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speed

STEPS = 150  # of a run that saves
MANY = 100
Figures = dict[str, float]


def start(place: Path) -> Figures:
    """Return seconds until the first step is done, of both, and CPU seconds of one process."""
    started = time.time()
    speed.train(place, "first", "ours-fp32")
    ours = (place / "ours-fp32" / "metrics.jsonl").stat().st_mtime - started
    started = time.time()
    speed.measure(place, "first", "trainer-fp32")
    theirs = (place / "trainer" / "first-step").stat().st_mtime - started
    return {"start ÷ Trainer's": ours / theirs, "start s": ours, "CPU s to the first step": cpu_to_first_step(place)}


def cpu_to_first_step(place: Path) -> float:
    """Return the CPU seconds of one process until its first step is in its metrics, imports included."""
    metrics = place / "alone-fp32" / "metrics.jsonl"
    shutil.rmtree(metrics.parent, ignore_errors=True)
    command = speed.train_command(place, "reviews", "alone-fp32", num_ranks=0)
    process = subprocess.Popen(command, env=speed.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not (metrics.exists() and '"event": "train"' in metrics.read_text()):
            time.sleep(0.005)
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    finally:
        process.kill()
        process.wait()


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


def memory(place: Path) -> Figures:
    """Return the peak memory of a rank with the demo's rows, and with a hundred times as many."""
    head, *rows = (place / "rows.csv").read_text().splitlines(keepends=True)
    peaks = {}
    for times in (1, MANY):
        table = place / f"rows-{times}.csv"
        table.write_text(head + "".join(rows) * times)
        speed.train(place, "reviews", "memory-fp32", ["--train_file", str(table)])
        peaks[times] = speed.train_records(place / "memory-fp32")[-1]["peak_memory_gib"]
    return {"peak GiB of a rank": peaks[1], f"peak GiB with {MANY} times the rows": peaks[MANY]}


PARTS: dict[str, Callable[[Path], Figures]] = {"start": start, "exact": exact, "saving": saving, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    machine = speed.run([sys.executable, str(speed.PARTS), "machine"])
    path = speed.results_path("costs", machine)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "reviews"
        speed.prepare(place, "reviews")
        speed.train(place, "first", "ringtune-fp32")  # tokenises, for all
        for part in options.parts:
            rounds: list[Figures] = []
            for number in range(options.rounds):
                rounds.append(PARTS[part](place))
                print(f"{part}, round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
            found = speed.keep(path, part, {"machine": machine, "rounds": rounds})
    print(f"{table(found)}\nwritten to {path}")


def table(found: dict[str, Any]) -> str:
    """Return the figures, as a table of Markdown. **Pure.**"""
    lines = ["| what | median | range |", "| --- | --- | --- |"]
    for part in found.values():
        for name in part["rounds"][0]:
            values = [each[name] for each in part["rounds"]]
            lines.append(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f}-{max(values):.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
