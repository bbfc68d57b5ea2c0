"""A file that is not as it was written is recognised: it is named, and nothing wrong comes out with exit code 0."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, predict, run_command
from short_run import SHORT, run_flags

pytestmark = pytest.mark.system
DAMAGE = ROOT / "tests" / "damage.py"
#: TensorBoard's files have checksums of their own; the lock's holder is for people.
HARMLESS = (".lock", ".lock.holder", "tfevents", ".filled")
ALL = pytest.param(True, id="all", marks=[pytest.mark.long, pytest.mark.timeout(1800)])
AMOUNT = [pytest.param(False, id="some"), ALL]


def damage_each(command: str, flags: dict, before: Path, folder: Path, *, inside: str, every_way: bool) -> None:
    """Assert that every damaged file is named, and that what comes out is refused or as without damage."""
    job = {"command": command, "flags": {name: str(value) for name, value in flags.items()}, "before": str(before)}
    job |= {"folder": str(folder), "inside": inside, "harmless": HARMLESS, "all": every_way}
    done = run_command([sys.executable, str(DAMAGE), json.dumps(job)], limit_s=1500)
    assert done.returncode == 0, done.output[-3000:]
    expected, *found = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert expected["code"] == 0 and len(found) >= 2, done.output[-3000:]
    results = {name: expected[name] for name in ("model.safetensors", "curve", "output") if name in expected}
    wrong = [each for each in found if not is_recognised(each, results)]
    shown = "\n".join(
        f"{each['file']} {each['way']}: exit code {each['code']}\n{each['printed'][-1000:]}" for each in wrong
    )
    assert not wrong, f"{len(wrong)} of {len(found)}:\n{shown}"


def is_recognised(found: dict, results: dict) -> bool:
    """Return whether a start with a damaged file named it, and gave no other result.

    What a killed prediction has not written, or somebody removed, is simply made.
    """
    words, path = found["printed"], Path(found["file"])
    compared = [name for name in results if (name, path.name) != ("curve", "metrics.jsonl")]  # what is lost is lost
    is_named = path.name in words or path.parent.name in words
    is_named = is_named or (found["way"] == "removed" and path.parent.name.endswith(".parts"))
    if "Traceback" in words or found["code"] not in (0, 2):
        return False
    return is_named and (found["code"] == 2 or all(found[name] == results[name] for name in compared))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Return where the command works, and where a copy of what it finds there is kept."""
    return tmp_path / "work", tmp_path / "before"


def prepare(workshop, work: Path, before: Path, **changes) -> None:
    """Keep a copy of the folder in which a run has trained, with its cache."""
    work.mkdir()
    workshop.train(0, work / "run", **{**SHORT, "cache_dir": work / "cache", **changes})
    assert (work / "run" / "metrics.jsonl").exists()
    os.rename(work, before)


@pytest.mark.parametrize("every_way", AMOUNT)
def test_in_a_run_that_has_finished(workshop, places, every_way):
    work, before = places
    prepare(workshop, work, before, save_total_limit=2)
    flags = run_flags(workshop, work / "run", cache_dir=work / "cache", save_total_limit=2)
    damage_each("train", flags, before, work, inside="run", every_way=every_way)


@pytest.mark.parametrize("every_way", [ALL])
def test_in_a_run_that_goes_on(workshop, places, every_way):
    work, before = places
    prepare(workshop, work, before, save_total_limit=3, save_steps=1, kill_at=3)
    flags = run_flags(workshop, work / "run", cache_dir=work / "cache", save_total_limit=3, save_steps=1)
    damage_each("train", flags, before, work, inside="run", every_way=every_way)


@pytest.mark.parametrize("every_way", [ALL])
def test_in_the_cache(workshop, places, every_way):
    work, before = places
    prepare(workshop, work, before)
    shutil.rmtree(before / "run")
    flags = run_flags(workshop, work / "run", cache_dir=work / "cache")
    damage_each("train", flags, before, work, inside="cache", every_way=every_way)


@pytest.mark.parametrize("inside", ["run", "run/checkpoint-4"])
@pytest.mark.parametrize("every_way", [ALL])
def test_in_the_model_of_a_prediction(workshop, places, every_way, inside):
    work, before = places
    prepare(workshop, work, before)
    for each in ("checkpoint-4", "checkpoint-2", "best", "metrics.jsonl"):
        if inside == "run" and not (before / "run" / each).is_dir():
            (before / "run" / each).unlink(missing_ok=True)
        elif inside == "run":
            shutil.rmtree(before / "run" / each)
    flags = {"model_name_or_path": work / inside, "input": workshop.dev, "output": work / "out.csv"}
    damage_each("predict", flags, before, work, inside=inside, every_way=every_way)


@pytest.mark.parametrize("every_way", [ALL])
@pytest.mark.parametrize("state", ["finished", "killed"])
def test_in_what_a_prediction_left(workshop, reference, places, every_way, state):
    work, before = places
    work.mkdir()
    flags = {"model_name_or_path": reference(1), "input": workshop.dev, "output": work / "out.csv"}
    fault = ("kill_at", "out.csv") if state == "killed" else ()
    done = predict(0, *flags.values(), fault=fault)
    assert (done.returncode == 0) == (state == "finished"), done.output
    os.rename(work, before)
    damage_each("predict", flags, before, work, inside=".", every_way=every_way)
