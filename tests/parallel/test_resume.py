"""A killed run goes on as if nothing had happened."""

from __future__ import annotations

import random

import pytest
from conftest import digests, records

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("steps", [(2, 7), pytest.param(range(12), marks=pytest.mark.long)], ids=["some", "all"])
def test_sigkill_after_any_step_changes_not_one_bit(workshop, reference, tmp_path, steps):
    """Each start is killed later than the last; in the long variant every step is once the last before a kill.

    The highest loss counts as best here: it is the first one, and a start that forgot it would record a later one.
    """
    settings = {"save_steps": 1, "eval_steps": 4, "metric_for_best_model": "loss", "greater_is_better": "true"}
    whole = reference(2, **settings)
    for step in steps:
        done = workshop.train(2, tmp_path / "run", kill_at=step, **settings)
        assert done.returncode != 0, done.output
    done = workshop.train(2, tmp_path / "run", **settings)
    assert done.returncode == 0, done.output
    assert digests(tmp_path / "run", 12) == digests(whole, 12)
    for event in ("rows", "train", "eval"):
        assert records(tmp_path / "run", event) == records(whole, event)
    assert len({each["best"] for each in records(whole, "eval")}) == 1


@pytest.mark.parametrize("sizes", [(2, 1, 2), pytest.param((4, 1, 2, 4), marks=pytest.mark.long)], ids=len)
def test_exact_runs_survive_kills_and_moves_between_world_sizes_bitwise(workshop, reference, tmp_path, sizes):
    settings = {"mode": "exact", "max_steps": 20}
    draw = random.Random(len(sizes))
    kills = sorted(draw.sample(range(3, 19), len(sizes) - 1))
    for size, kill_at in zip(sizes, [*kills, None], strict=True):
        done = workshop.train(size, tmp_path / "run", kill_at=kill_at, save_steps=2, **settings)
        assert (done.returncode == 0) == (kill_at is None), done.output
    whole = reference(1, **settings)
    assert digests(tmp_path / "run", 20) == digests(whole, 20)
    assert [sorted(each["rows"]) for each in records(tmp_path / "run", "rows")] == [
        sorted(each["rows"]) for each in records(whole, "rows")
    ]


def test_a_stop_on_any_rank_saves_on_all_exits_75_and_goes_on(workshop, reference, tmp_path):
    # The signal arrives while step 5 is under way; the ranks speak of it in step 6.
    done = workshop.train(2, tmp_path / "run", fault=("stop", "5", "1"))
    assert "stopped on request after step 6 of 12" in done.output
    assert done.returncode == 75, done.output
    assert workshop.train(2, tmp_path / "run").returncode == 0
    assert digests(tmp_path / "run", 12) == digests(reference(2), 12)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(workshop, reference, tmp_path):
    workshop.train(2, tmp_path / "run", kill_at=8, save_steps=2)
    with (tmp_path / "run" / "checkpoint-6" / "model.safetensors").open("r+b") as stream:
        stream.truncate(100)
    (tmp_path / "run" / "checkpoint-8").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoint-8" / "manifest.json").unlink(missing_ok=True)
    done = workshop.train(2, tmp_path / "run", save_steps=2)
    assert done.returncode == 0, done.output
    assert "checkpoint-6: model.safetensors has 100 of" in done.output
    assert "checkpoint-8: it has no manifest.json" in done.output
    assert "going on from" in done.output and "checkpoint-4" in done.output
    assert digests(tmp_path / "run", 12) == digests(reference(2), 12)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_kept(workshop, tmp_path):
    assert workshop.train(0, tmp_path / "run", max_steps=2).returncode == 0
    weights = tmp_path / "run" / "checkpoint-2" / "model.safetensors"
    with weights.open("r+b") as stream:
        stream.truncate(100)
    done = workshop.train(0, tmp_path / "run", max_steps=4)
    assert done.returncode == 2 and "none of its 1 checkpoint(s) is whole: checkpoint-2" in done.output, done.output
    assert weights.exists()
    assert workshop.train(0, tmp_path / "run", max_steps=4, overwrite_output_dir="true").returncode == 0
