"""Sweeps: their runs, and the table that compares these."""

from __future__ import annotations

import json

import pytest
from ringtune.slurm.record import SWEEP_FILE
from ringtune.slurm.results import axes_of
from ringtune.train import results, sweep
from ringtune.train.contract import FINISHED_FILE, METRICS_FILE, SLURM_DIR, UsageError


def test_a_sweep_is_every_combination_in_a_folder_of_its_own():
    axes = sweep.parse(["learning-rate=1e-5,2e-5", "seed=1..3"])
    runs = sweep.expand(axes)
    assert len(runs) == 6 and runs[1] == {"learning_rate": "1e-5", "seed": "2"}
    assert [sweep.folder_name(each) for each in runs][-1] == "learning_rate=2e-5,seed=3"
    assert sweep.folder_name({"train_file": "/a b/c"}) == "train_file=_a_b_c"
    assert sweep.expand({}) == [{}] and sweep.folder_name({}) == ""


def test_many_runs_are_refused_before_they_are_counted_out():
    for words in (["seed=1..100000000000000"], [f"{name}=1..9999" for name in ("seed", "save_steps", "max_steps")]):
        with pytest.raises(UsageError, match=r"\d{9,} runs; at most 10000"):
            sweep.parse(words)


def test_of_many_runs_values_are_checked_one_by_one():
    axes = {"a": ["1", "2"], "b": [str(number) for number in range(5000)]}
    found = sweep.to_check(axes)
    assert found[:3] == [{"a": "1", "b": "0"}, {"a": "2", "b": "0"}, {"a": "1", "b": "1"}]
    assert found[-1] == {"a": "1", "b": "4999"} and len(found) == 2 + 199 + 1
    assert len(sweep.to_check({"a": ["1", "2"], "b": ["1", "2", "3"]})) == 6
    large = {"a": ["1", "2"], "b": [str(number) for number in range(150)]}
    assert len(sweep.to_check(large)) == 2 + 149


def test_tasks_of_an_array_are_written_as_spans():
    assert sweep.spans(range(10_000)) == "0-9999"
    assert sweep.spans([5, 0, 1, 2, 7, 8]) == "0-2,5,7-8"


def test_two_values_that_would_share_a_folder_are_refused():
    with pytest.raises(UsageError, match="would share the folder"):
        sweep.parse(["train_file=a/b,a_b"])


def test_the_table_has_mean_and_deviation_over_seeds():
    runs = [
        ({"lr": lr, "seed": seed}, {"eval_accuracy": value, "eval_num_rows": 9})
        for lr, seed, value in (("1", "1", 0.8), ("1", "2", 0.9), ("2", "1", 0.5))
    ] + [({"lr": "2", "seed": "2"}, None)]
    rows = results.group(runs)
    assert [(row.settings, row.num_finished, row.num_runs) for row in rows] == [
        ({"lr": "1"}, 2, 2),
        ({"lr": "2"}, 1, 2),
    ]
    mean, deviation = rows[0].scores["accuracy"]
    assert (mean, deviation) == (pytest.approx(0.85), pytest.approx(0.1 / 2**0.5))
    assert results.results_table(rows).splitlines()[1] == "1   2 of 2    0.8500 ± 0.0707"


def test_a_run_that_has_no_scores_is_finished_when_it_has_finished(tmp_path):
    """It had no validation rows, or, the third one, has not finished."""
    (tmp_path / SLURM_DIR).mkdir()
    (tmp_path / SLURM_DIR / SWEEP_FILE).write_text(json.dumps({"axes": {"seed": ["1", "2", "3"], "lr": ["1", "2"]}}))
    for seed in "123":
        for lr in "12":
            run = tmp_path / f"seed={seed},lr={lr}"
            run.mkdir()
            events = [{"event": "train", "step": 1}, {"event": "eval", "eval_loss": float(seed)}]
            (run / METRICS_FILE).write_text("".join(f"{json.dumps(each)}\n" for each in events[: int(lr)]))
            if seed != "3":
                (run / FINISHED_FILE).write_text("{}")
    rows = results.collect(tmp_path, axes_of(tmp_path))
    assert [(row.settings["lr"], row.num_finished, row.num_runs) for row in rows] == [("1", 2, 3), ("2", 2, 3)]
    assert rows[0].scores == {} and rows[1].scores["loss"][0] == 1.5
    assert [line.split() for line in results.results_table(rows).splitlines()][:2] == [
        ["lr", "finished", "loss"],
        ["1", "2", "of", "3", "-"],
    ]


def test_scores_that_only_some_runs_have_are_those_of_these():
    rows = results.group(
        [({"seed": "1"}, {}), ({"seed": "2"}, {"eval_f1": 0.5}), ({"seed": "3"}, {"eval_loss": 2.0, "eval_r2": None})]
    )
    assert (rows[0].num_finished, dict(rows[0].scores)) == (3, {"f1": (0.5, 0.0), "loss": (2.0, 0.0)})
