"""The commands of several runs: what they would start, and the tables they show."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ringtune.train import glue, results
from ringtune.train.results import Row
from ringtune.train.text_names import GLUE_COLUMNS

SEARCH = ("--search", "optuna", "--trials", "4", "--sweep", "learning_rate=1e-5..1e-3:log")


def command(*words, cwd=None):
    return subprocess.run(
        [sys.executable, "-P", "-m", "ringtune.train.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=60,
    )


def test_every_task_has_a_published_score_that_a_run_writes():
    assert list(glue.PUBLISHED) == list(GLUE_COLUMNS)
    known = {"accuracy", "accuracy_mm", "f1", "matthews_correlation", "pearson", "spearmanr"}
    assert {score for scores in glue.PUBLISHED.values() for score in scores} == known


def test_the_table_shows_mean_and_deviation_in_percent_beside_what_was_published():
    rows = [
        Row({"task_name": "stsb"}, 3, 2, {"pearson": (0.5, 0.01), "spearmanr": (0.25, 0.0)}),
        Row({"task_name": "rte"}, 3, 0, {}),
    ]
    assert [line.split()[:5] for line in glue.table(rows).splitlines()[1:]] == [
        ["stsb", "pearson", "50.00", "1.00", "2"],
        ["stsb", "spearmanr", "25.00", "0.00", "2"],
        ["rte", "accuracy", "-", "-", "0"],
    ]
    assert glue.table(rows).splitlines()[1].endswith("2 of 3    88.64")


def test_a_dry_run_prints_one_command_for_each_task_and_seed_with_the_published_settings(tmp_path):
    done = command(
        "glue", "--model_name_or_path", "m", "--tasks", "rte,mnli", "--seeds", "2", "--dry_run", cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 4, done.stderr
    assert all("--model_name_or_path m --max_seq_length=128" in line for line in lines)
    assert all("--learning_rate=2e-5 --num_train_epochs=3 --task_name" in line for line in lines)
    assert lines[1].endswith("--task_name=rte --seed=43 --output_dir=runs/glue/task_name=rte,seed=43")
    done = command(
        "glue", "--seeds", "7,9", "--model_name_or_path=m", "--learning-rate", "1e-5", "--dry_run", cwd=tmp_path
    )
    assert len(done.stdout.splitlines()) == 18 and "--learning_rate=2e-5" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_a_file_of_settings_or_another_name_of_a_flag_says_wins_over_the_published_settings(tmp_path):
    (tmp_path / "mine.yaml").write_text("model_name_or_path: m\nlearning_rate: 1e-4\nper_device_train_batch_size: 4\n")
    (tmp_path / "args.json").write_text('{"model_name_or_path": "m", "learning_rate": 1e-4}')
    for words, left in (
        (["--config", "mine.yaml", "--max_length", "64"], ["num_train_epochs"]),
        (["args.json"], ["max_seq_length", "global_batch_size", "num_train_epochs"]),
    ):
        done = command("glue", *words, "--tasks=rte", "--seeds=1", "--dry_run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [name for name in glue.FLAGS if f"--{name}=" in done.stdout] == left


def test_ranks_of_each_run_are_started_by_our_launcher(tmp_path):
    words = ("sweep", "--sweep", "seed=1..2", "--num_proc", "2", "--dry_run", "--model_name_or_path=m")
    done = command(*words, "--train_file=rows.csv", "--output_dir", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert "ringtune.launch.cli run -np 2 -- " in first and first.endswith(f"--output_dir={tmp_path}/all/seed=1")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["glue", "--tasks", "colla"], "colla is no GLUE task; cola"),
        (["glue", "--tasks", "cola,cola"], "'cola,cola' has a name twice"),
        (["glue", "--seeds", "0"], "'0' is no number of seeds"),
        (["glue", "--seeds", "a,b"], "'a,b' is no number of seeds"),
        (["glue", "--num_proc", "0"], "--num_proc: 0 is too few"),
        (["glue", "--model_name_or_path=m", "--learning_rat", "1"], "learning_rat"),
        (["sweep", "--sweep", "seed"], "'seed' is not understood"),
        (["sweep", "--search", "optuna", "--sweep", "seed=1..9", "--trials", "2"], "seed cannot be searched over"),
        (["sweep", *SEARCH, "--output_dir=/dev/null", "--model_name_or_path=m", "--train_file=x"], "/dev/null"),
        (["sweep", "--sweep", "sead=1,2", "--model_name_or_path=m", "--train_file=x"], "sead"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_first_run(words, reason, tmp_path):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", ["1,", ",", "", "1,1", "07,7", "1,\u00b2", "100000", "9" * 5000])
def test_seeds_that_are_none_or_come_twice_are_refused(seeds, capsys):
    assert glue.main(["--model_name_or_path", "m", "--dry_run", f"--seeds={seeds}"]) == 2
    shown = capsys.readouterr()
    assert "--seeds: '" in shown.err and "a number from 1 to 10000, or seeds such as 1,2,3" in shown.err
    assert shown.out == ""


def test_a_dry_run_of_a_search_prints_the_command_of_its_first_trial_and_writes_nothing(tmp_path):
    done = command("sweep", *SEARCH, "--dry_run", "--model_name_or_path=m", "--train_file=rows.csv", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.startswith("4 trials over learning_rate=1e-5..1e-3:log"), done.stderr
    (line,) = done.stdout.splitlines()
    assert "--learning_rate=" in line and line.endswith("--output_dir=runs/sweep/trial=0")
    assert not list(tmp_path.iterdir())


def test_several_ranks_of_the_command_itself_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    done = command("sweep", "--sweep", "seed=1,2", "--model_name_or_path=m", "--train_file=x", cwd=tmp_path)
    assert done.returncode == 2 and "legal" not in done.stdout and "use --num_proc" in done.stderr, done.stderr


def test_a_run_without_validation_rows_is_finished_without_scores(tmp_path):
    assert results.scores_of_run(tmp_path) is None
    (tmp_path / "finished.json").write_text("{}")
    assert results.scores_of_run(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"event": "eval", "step": 1, "eval_f1": 0.5}) + "\n")
    assert results.scores_of_run(tmp_path)["eval_f1"] == 0.5
