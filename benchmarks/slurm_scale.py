"""Measure what large clusters and large sweeps cost: ``benchmarks/slurm_scale.py [--runs 10000] [--nodes 4096]``.

A real SLURM with its accounting, on hosts out of network namespaces (root and the test packages that the README
names). ``--runs``: a sweep of so many runs is submitted as one array, held; ``ringtune-slurm status`` looks at all of
them, and again when the array was cancelled and slurmctld has forgotten it. How often it asks SLURM is counted by
commands of the same names before SLURM's own. ``--nodes``: plan and rank table of a job of so many nodes with eight
tasks each, from the variables that SLURM sets in it, and the script of such a job. Each command is timed whole, the
start of Python included: the median of five.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import speed  # noqa: E402
import tiny  # noqa: E402
from cluster.slurm import Slurm  # noqa: E402
from conftest import Workshop, rank_environment, script  # noqa: E402

ROUNDS = 5
TASKS_PER_NODE = 8
FORGETTING_LIMIT_S = 300
COUNTED = ("squeue", "sacct", "scontrol")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        with Slurm("n1", shared=folder, accounted=True) as slurm:
            bench = Bench(slurm, folder)
            found = {**bench.nodes(options.nodes), **bench.runs(options.runs)}
    machine = speed.run([sys.executable, str(speed.PARTS), "machine"])
    path = speed.results_path("slurm-scale", machine)
    path.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")
    print(f"{json.dumps(found, indent=1)}\nwritten to {path}")


class Bench:
    """A user at a SLURM, with a tiny model and rows."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        tiny.write(folder)
        self.here = Workshop(folder / "model", folder / "rows.csv", folder / "dev.csv", folder / "tokens")
        self.env = {**rank_environment(os.environ), "RINGTUNE_CACHE": str(folder / "cache")}

    def run(self, *words: object, env: Mapping[str, str] | None = None) -> str:
        done = self.slurm.run([str(word) for word in words], env={**self.env, **(env or {})}, limit_s=1200)
        if done.returncode:
            sys.exit(f"{words}: {done.output}")
        return done.output

    def nodes(self, number: int) -> dict[str, Any]:
        """Return the seconds of a plan with its rank table, and of a script."""
        names = f"n[{1:04}-{number:04}]"
        in_job = {
            "SLURM_JOB_ID": "1",
            "SLURM_JOB_NODELIST": names,
            "SLURM_TASKS_PER_NODE": f"{TASKS_PER_NODE}(x{number})",
            "SLURM_NTASKS": str(TASKS_PER_NODE * number),
        }
        plan = [script("ringtune-launch"), "run", "--launcher", "srun", "--dry-run", "--", "true"]
        asked = ["--nodes", number, "--ntasks-per-node", TASKS_PER_NODE]
        text = [script("ringtune-slurm"), "script", *asked, "--", *self.here.arguments(self.folder / "one")]
        table = self.run(*plan, env=in_job)
        assert f"\n{TASKS_PER_NODE * number - 1:>5}  n{number:04}" in table, table[-2000:]
        return {
            "nodes": number,
            "ranks": TASKS_PER_NODE * number,
            "plan_and_table_s": seconds(lambda: self.run(*plan, env=in_job)),
            "script_s": seconds(lambda: self.run(*text)),
        }

    def runs(self, number: int) -> dict[str, Any]:
        """Return the seconds of a sweep's submission and of its status, and what the status asked SLURM."""
        sweep = self.folder / "sweep"
        flags = self.here.arguments(sweep, max_steps=1, save_strategy="no", do_eval="false")
        started = time.monotonic()
        words = ["submit", "--no-doctor", "--hold", "--sweep", f"seed=1..{number}", "--", *flags]
        job = self.run(script("ringtune-slurm"), *words).split()[-1]
        submitted = round(time.monotonic() - started, 1)
        found = {"runs": number, "submit_s": submitted, "waiting": self._status(sweep, "PENDING", number)}
        self.run("scancel", job)
        deadline = time.monotonic() + FORGETTING_LIMIT_S
        while self.run("squeue", "-h", "-t", "all", "-o", "%i").strip():  # slurmctld remembers ended jobs for a while
            if time.monotonic() > deadline:
                sys.exit("slurmctld does not forget the jobs")
            time.sleep(1.0)
        return {**found, "forgotten": self._status(sweep, "CANCELLED", number)}

    def _status(self, sweep: Path, state: str, number: int) -> dict[str, Any]:
        """Return the seconds of a status of runs that are all in this state, and what it asks SLURM."""
        status = [script("ringtune-slurm"), "status", sweep]
        log = self.folder / "asked"
        log.write_text("")
        lines = self.run(*status, env={"PATH": f"{self._counting()}:{self.env['PATH']}"}).splitlines()
        assert sum(f"  {state}  " in line for line in lines) == number, lines[:5]
        return {"asks": log.read_text().split(), "seconds": seconds(lambda: self.run(*status))}

    def _counting(self) -> Path:
        """Return a folder with commands that note their names and become SLURM's own."""
        folder = self.folder / "counting"
        folder.mkdir(exist_ok=True)
        for name in COUNTED:
            own = shutil.which(name)
            (folder / name).write_text(f'#!/bin/sh\necho {name} >> {self.folder}/asked\nexec {own} "$@"\n')
            (folder / name).chmod(0o755)
        return folder


def seconds(action: Callable[[], object]) -> float:
    """Return the median of some rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 3)


if __name__ == "__main__":
    main()
