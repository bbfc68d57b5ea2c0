"""Searches as job arrays: what is submitted, and what each task trains. No SLURM needed."""

from __future__ import annotations

import json

import pytest
from ringtune.slurm import array_task, batch, record, script, status, submit
from ringtune.slurm.profile import Profile
from ringtune.train import search, study, trial
from ringtune.train.contract import EXIT_FINISHED, EXIT_PRUNED, UsageError

SPACE = ("learning_rate=1e-5..1e-3:log", "optim=adamw_torch,lamb")


def request(folder, **changes) -> submit.Submission:
    flags = ["--model_name_or_path=m", "--train_file=x", "--seed=7", f"--output_dir={folder}"]
    facts = {"train": flags, "sweep": SPACE, "search": "optuna", "trials": 20, **changes}
    return submit.Submission(**facts)


def test_a_search_is_an_array_of_one_task_for_each_trial(tmp_path):
    job = submit.make_job(request(tmp_path, sbatch={"array": "%4"}))
    assert job.sbatch["array"] == "0-19%4" and job.axes == {"trial": [str(number) for number in range(20)]}
    text = script.text(job)
    assert f"  --search=optuna \\\n  --trials=20 \\\n  --pruning=3 \\\n  --sweep={SPACE[0]} \\\n" in text
    assert "/slurm/%A_%a.log" in text
    with pytest.raises(UsageError, match="warmup_ratio"):
        submit.make_job(request(tmp_path, sweep=["warmup_ratio=0.0..2.0"]))
    with pytest.raises(UsageError, match="nothing is evaluated"):
        submit.make_job(request(tmp_path, train=[*request(tmp_path).train, "--do_eval=false"]))


def test_a_search_without_optuna_is_refused_before_its_trials_are_queued(tmp_path, monkeypatch):
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--search optuna: optuna is not installed"):
        submit.make_job(request(tmp_path))
    submit.make_job(request(tmp_path, profile=Profile(python="/on/the/nodes/python")))  # which may have it


def options_of(folder, number: int, monkeypatch):
    """Return what the batch step of a task parses from its script."""
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
    job = submit.make_job(request(folder, pruning="off"))
    line = script.text(job).split("exec ")[1].split("<<")[0].replace("\\\n", "")
    words = [word for word in line.split() if word.startswith("--")]
    return batch._parser().parse_args(words), job.config


def test_a_task_trains_its_own_trial_at_every_start_and_tells_the_study_what_it_brought(tmp_path, monkeypatch):
    found = []
    for number in (1, 0, 1):
        options, config = options_of(tmp_path, number, monkeypatch)
        settings = array_task.settings_of(options)
        assert settings == {"trial": str(number)}
        found.append(array_task.flags_of(options, settings, config))
    assert found[0] == found[2] != found[1] and len(study.Study(tmp_path).study.get_trials()) == 2
    drawn = trial.read(tmp_path / "trial=1").settings
    assert found[0] == [f"--{name}={value}" for name, value in drawn.items()]
    entry = trial.outcome_entry("accuracy", 0.5, greater_is_better=True, pruned=False)
    (tmp_path / "trial=1" / "finished.json").write_text(json.dumps(entry))
    array_task.settle(options)
    assert [each.value for each in study.Study(tmp_path).study.get_trials()] == [-0.5, None]


def test_ranks_that_end_pruned_have_finished(tmp_path):
    step = batch.BatchStep.__new__(batch.BatchStep)
    step.asked, step.nodes = "", ["n1"]
    end = step._end_of(EXIT_PRUNED, tmp_path)
    assert (end.exit_code, end.reason) == (EXIT_FINISHED, "pruned: other trials do better")


def test_a_sweep_and_a_plain_run_are_as_they_were(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    options = batch._parser().parse_args(["--output-dir=/x", "--script=y", "--sweep=seed=1,2"])
    settings = array_task.settings_of(options)
    assert settings == {"seed": "2"} and array_task.flags_of(options, settings, "") == ["--seed=2"]
    options = batch._parser().parse_args(["--output-dir=/x", "--script=y"])
    assert array_task.settings_of(options) == {} and array_task.flags_of(options, {}, "") == []
    array_task.settle(options)


def test_status_shows_the_settings_of_a_trial(tmp_path):
    for number in range(2):
        run = tmp_path / f"trial={number}"
        trial.write(run, number, {"learning_rate": f"{number}e-05", "optim": "lamb"})
        record.Record(run).add(record.SUBMITTED)
    found = status.look([tmp_path / f"trial={number}" for number in range(2)])
    assert status.status_table(found).splitlines()[2].endswith("learning_rate=1e-05, optim=lamb")
    assert "trial:       learning_rate=0e-05, optim=lamb" in status.status_table(found[:1])
    (tmp_path / "trial=0" / "trial.json").write_text("{")
    assert "it cannot be read" in status.look([tmp_path / "trial=0"])[0].trial
