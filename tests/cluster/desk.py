"""A user's desk at a real SLURM, and the fixtures that give one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster.hosts import Done
from cluster.slurm import Slurm
from cluster.waiting import settled
from conftest import Workshop, digests, rank_environment, records, script

TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


def copied(workshop: Workshop, folder: Path) -> Workshop:
    """Copy the tiny model and its rows into a folder that all hosts share."""
    for each in (workshop.model, workshop.rows, workshop.dev):
        (shutil.copytree if each.is_dir() else shutil.copy)(each, folder / each.name)
    return Workshop(folder / "model", folder / "rows.csv", folder / "dev.csv", folder / "tokens")


class Desk:
    """A user's desk: a SLURM, a folder that all hosts see, a tiny model and rows in it, and the command."""

    def __init__(self, slurm: Slurm, workshop: Workshop, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.here = copied(workshop, folder)
        self.env = {**rank_environment(os.environ), "RINGTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def sh(self, *command: object, limit_s: float = 120) -> Done:
        return self.slurm.run([str(word) for word in command], env=self.env, limit_s=limit_s)

    def __call__(self, *words: object, limit_s: float = 200) -> Done:
        return self.sh(script("ringtune-slurm"), *words, limit_s=limit_s)

    def submit(self, *words: object, run: str = "run", doctor: bool = False, **changes: object) -> str:
        """Submit a run of the tiny model and return its job's id."""
        flags = self.here.arguments(self.folder / run, **changes)
        done = self("submit", *words, *([] if doctor else ["--no-doctor"]), "--", *flags)
        assert done.returncode == 0, done.output
        return done.output.split()[-1]

    def status(self, target: object = "") -> dict:
        found = json.loads(self("status", target or self.folder / "run", "--json").output)
        assert len(found) == 1
        return found[0]

    def until(self, condition: Callable[[dict], bool], limit_s: float = 90) -> dict:
        """Wait until the run's status is as wanted and return it."""
        seen: list[dict] = []

        def is_so() -> bool:
            seen.append(self.status())
            return condition(seen[-1])

        assert settled(is_so, limit_s, every_s=0.5), f"{seen[-1]}\n{self.log()}\n{self.slurm.logs()}"
        return seen[-1]

    def finish(self, limit_s: float = 200) -> dict:
        """Wait for the run's end and return its status."""
        done = self("wait", self.folder / "run", "--timeout", limit_s - 5, limit_s=limit_s)
        found = self.status()
        assert found["is_over"], f"{done.output}\n{self.log()}"
        assert (done.returncode == 0) == (found["state"] == "COMPLETED"), done.output
        return found

    def log(self) -> str:
        return self("logs", self.folder / "run").output

    def events(self, kind: str, run: str = "run") -> list[dict]:
        lines = (self.folder / run / "slurm" / "events.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["event"] == kind]

    def finished_as(self, whole: Path, step: int) -> None:
        """Assert that the run ended bitwise like an uninterrupted one, every row of every step seen once."""
        assert digests(self.folder / "run", step) == digests(whole, step)
        rows = [[sorted(each["rows"]) for each in records(folder, "rows")] for folder in (self.folder / "run", whole)]
        assert rows[0] == rows[1] and len(rows[0]) == step


@pytest.fixture
def desk(make_slurm, workshop: Workshop, tmp_path: Path) -> Callable[..., Desk]:
    return lambda *nodes, **options: Desk(make_slurm(*nodes, **options), workshop, tmp_path)


#: A run that lasts long enough for things to happen to it.
LONG = {
    "mode": "exact",
    "num_shards": 2,
    "max_steps": 400,
    "save_steps": 50,
    "save_total_limit": 2,
    "eval_strategy": "no",
}


def start(mine: Desk, *words: object, until_step: int = 50, **changes: object) -> dict:
    """Submit a long run on two nodes and wait until it has a checkpoint."""
    mine.submit(*(words or TWO_NODES), **{**LONG, **changes})
    return mine.until(lambda found: found["state"] == "RUNNING" and (found["checkpoint_step"] or 0) >= until_step)


@pytest.fixture(scope="session")
def whole(reference: Callable[..., Path]) -> Path:
    """The long run, never stopped, without SLURM and on one rank."""
    return reference(0, **LONG)
