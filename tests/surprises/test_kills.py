"""A process killed before any of its acts on the disk is taken up by the same command, and nothing is different."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_command
from short_run import SHORT, run_flags

pytestmark = pytest.mark.system
KILLS = ROOT / "tests" / "kills.py"


def kill_everywhere(command: str, flags: dict, before: Path | None, folder: Path, every: int) -> list[dict]:
    """Return what a command left that was killed and started again, for each place where it was killed."""
    words = {name: str(value) for name, value in flags.items() if value is not None}
    job = {"command": command, "flags": words, "before": str(before or ""), "folder": str(folder), "every": every}
    done = run_command([sys.executable, str(KILLS), json.dumps(job)], limit_s=1500)
    assert done.returncode == 0, done.output[-3000:]
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    expected, *killed, last = lines
    assert expected["code"] == 0, expected
    assert "ended" in last and last["ended"] == 0, last
    assert len(killed) >= 3, str(lines)[-3000:]
    clean = {name: value for name, value in expected.items() if name != "output"}
    for each in killed:
        found = {name: value for name, value in each.items() if name not in ("killed", "kill_at", "output")}
        assert found == clean, f"killed at {each['kill_at']}, {each['killed']}:\n{each['output']}"
    assert clean["left"] == []
    return killed


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Return where the command works, and where a copy of what it finds there is kept."""
    return tmp_path / "work", tmp_path / "before"


def prepare(workshop, run: Path, before: Path, **changes) -> None:
    """Keep a copy of the folder in which a run has trained."""
    run.parent.mkdir()
    done = workshop.train(0, run, **{**SHORT, **changes})
    assert done.returncode == 0, done.output
    os.rename(run.parent, before)


ALL = pytest.param(1, id="all", marks=[pytest.mark.long, pytest.mark.timeout(1800)])
EVERY = [pytest.param(37, id="some"), ALL]


@pytest.mark.parametrize("every", [ALL])
def test_a_first_run_with_an_empty_cache(workshop, places, every):
    work, _ = places
    kill_everywhere("train", run_flags(workshop, work / "run", cache_dir=work / "cache"), None, work, every)


@pytest.mark.parametrize("every", EVERY)
def test_a_run_that_overwrites_another(workshop, places, every):
    work, before = places
    prepare(workshop, work / "run", before, seed=7)
    kill_everywhere("train", run_flags(workshop, work / "run", overwrite_output_dir="true"), before, work, every)


@pytest.mark.parametrize("every", [ALL])
def test_a_run_that_goes_on_for_longer(workshop, places, every):
    work, before = places
    prepare(workshop, work / "run", before)
    kill_everywhere("train", run_flags(workshop, work / "run", max_steps=6), before, work, every)


@pytest.mark.parametrize("every", [ALL])
def test_a_run_that_goes_back_to_an_earlier_step(workshop, places, every):
    work, before = places
    prepare(workshop, work / "run", before, save_total_limit=3)
    start = {"resume_from_checkpoint": work / "run" / "checkpoint-2", "learning_rate": 1e-3, "max_steps": 3}
    kill_everywhere("train", run_flags(workshop, work / "run", **start), before, work, every)


@pytest.mark.parametrize("every", EVERY)
def test_a_prediction(workshop, places, reference, every):
    work, _ = places
    flags = {"model_name_or_path": reference(1), "input": workshop.dev, "output": work / "out.csv"}
    kill_everywhere("predict", flags, None, work, max(1, every // 6))
    shutil.rmtree(work)
