"""A command that is run again does what it says, or says why not."""

from __future__ import annotations

import shutil

import pytest
from conftest import digests, records

pytestmark = pytest.mark.system


def test_another_batch_size_per_rank_is_refused_by_name_and_the_same_one_holds_at_any_world_size(workshop, tmp_path):
    words = {"global_batch_size": None, "per_device_train_batch_size": 6, "mode": "exact", "num_shards": 2}
    assert workshop.train(2, tmp_path / "run", max_steps=2, **words).returncode == 0
    done = workshop.train(2, tmp_path / "run", max_steps=4, **{**words, "per_device_train_batch_size": 4})
    assert done.returncode == 2, done.output
    assert (
        "--per_device_train_batch_size: 4 makes 8 rows a step at 2 rank(s); the run to be resumed has 12" in done.output
    )
    for size, steps in ((1, 4), (2, 6)):
        done = workshop.train(size, tmp_path / "run", max_steps=steps, **words)
        assert done.returncode == 0 and "going on from" in done.output, done.output
    assert all(len(each["rows"]) in (12, 5) for each in records(tmp_path / "run", "rows"))


@pytest.mark.parametrize(("changed", "value"), [("num_shards", 4), ("bf16", "true"), ("num_threads", 2)])
def test_other_mathematics_is_refused_by_name(workshop, tmp_path, changed, value):
    words = {"mode": "exact", "num_shards": 2}
    assert workshop.train(1, tmp_path / "run", max_steps=2, **words).returncode == 0
    done = workshop.train(1, tmp_path / "run", max_steps=4, **{**words, changed: value})
    assert done.returncode == 2 and f"--{changed}: " in done.output, done.output


def test_the_same_bytes_under_another_path_resume_and_other_bytes_do_not(workshop, reference, tmp_path):
    words = {"mode": "exact", "num_shards": 2, "save_steps": 6}
    assert workshop.train(1, tmp_path / "run", kill_at=9, **words).returncode != 0
    shutil.copy(workshop.rows, tmp_path / "moved.csv")
    done = workshop.train(1, tmp_path / "run", train_file=tmp_path / "moved.csv", **words)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 12) == digests(reference(1, **words), 12)
    (tmp_path / "moved.csv").write_text(workshop.rows.read_text() + "a fine film,up\n")
    done = workshop.train(1, tmp_path / "run", train_file=tmp_path / "moved.csv", max_steps=14, **words)
    assert done.returncode == 2 and "the data is not what it was" in done.output, done.output


def test_more_steps_report_what_becomes_of_the_learning_rate_and_fewer_that_there_is_nothing_to_do(workshop, tmp_path):
    assert workshop.train(1, tmp_path / "run", max_steps=10).returncode == 0
    done = workshop.train(1, tmp_path / "run", max_steps=20)
    assert done.returncode == 0, done.output
    assert "the schedule has 20 steps instead of 10: the learning rate of step 11 is 0.000556, where" in done.output
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    done = workshop.train(1, tmp_path / "run", max_steps=6)
    assert done.returncode == 0 and "already at step 20 of 6: nothing to train" in done.output, done.output
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    done = workshop.train(1, tmp_path / "run", max_steps=20)
    assert done.returncode == 0 and "finished already at step 20" in done.output, done.output


def test_a_stopped_run_that_is_asked_for_fewer_steps_than_it_has_is_left_as_it_is(workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run", fault=("stop", "8", "0"))
    assert done.returncode == 75, done.output
    done = workshop.train(1, tmp_path / "run", max_steps=6)
    assert done.returncode == 0 and "of 6: nothing to train" in done.output, done.output
    assert not (tmp_path / "run" / "finished.json").exists()
