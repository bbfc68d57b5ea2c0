"""Sweeps: their runs, and the table that compares these."""

from __future__ import annotations

import pytest
from ringtune.slurm import results, sweep
from ringtune.train.contract import UsageError


def test_a_sweep_is_every_combination_in_a_folder_of_its_own():
    axes = sweep.parse(["learning-rate=1e-5,2e-5", "seed=1..3"])
    runs = sweep.expand(axes)
    assert len(runs) == 6 and runs[1] == {"learning_rate": "1e-5", "seed": "2"}
    assert [sweep.folder_name(each) for each in runs][-1] == "learning_rate=2e-5,seed=3"
    assert sweep.folder_name({"train_file": "/a b/c"}) == "train_file=_a_b_c"
    assert sweep.expand({}) == [{}] and sweep.folder_name({}) == ""


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
