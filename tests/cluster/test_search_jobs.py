"""``ringtune-slurm submit --search optuna`` on a real SLURM."""

from __future__ import annotations

import json
import sys

import pytest
from cluster.waiting import settled
from conftest import digests, run_command
from ringtune.train import study, trial
from ringtune.train.contract import FINISHED_FILE

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]
TRAIN = (sys.executable, "-P", "-m", "ringtune.train.cli")
SEARCH = ("--search=optuna", "--pruning=1", "--sweep=learning_rate=1e-5..1e-2:log", "--sweep=optim=adamw_torch,lamb")
FLAGS = {
    "learning_rate": None,
    "eval_strategy": "steps",
    "eval_steps": 40,
    "max_steps": 160,
    "save_steps": 20,
    "metric_for_best_model": "loss",
    "mode": "exact",
    "num_shards": 2,
    "save_total_limit": 2,
}


def test_an_array_whose_tasks_follow_each_other_has_the_trials_of_a_search_on_one_machine(desk):
    """Pruned ones are over for SLURM, status, wait, resume and table."""
    mine = desk("n1", "n2")
    job = mine.submit("--ntasks=1", "--array=%1", *SEARCH, "--trials=4", **FLAGS)
    run = mine.folder / "run"
    waited = mine("wait", job, limit_s=300)
    assert waited.returncode == 0 and "4 COMPLETED" in waited.output, waited.output
    local = mine.folder / "local"
    flags = mine.here.arguments(local, **FLAGS)
    words = [*TRAIN, "sweep", *SEARCH, "--trials=4", *flags]
    done = run_command(words, limit_s=300)
    assert done.returncode == 0, done.output
    here, there = (study.Study(each).study.get_trials() for each in (local, run))
    states = [each.state.name for each in here]
    assert "PRUNED" in states and states.count("COMPLETE") > 1, done.output
    for first, second in zip(here, there, strict=True):
        assert (first.params, first.state, first.values) == (second.params, second.state, second.values)
        assert first.intermediate_values == second.intermediate_values
    for number in range(4):
        step = json.loads((local / f"trial={number}" / FINISHED_FILE).read_bytes())["stopped_at"]
        assert digests(local / f"trial={number}", step) == digests(run / f"trial={number}", step)
    table = mine("table", run).output.replace(str(run), "").splitlines()
    assert table == done.output.replace(str(local), "").splitlines()[-6:]
    pruned = states.index("PRUNED")
    shown = mine("status", run / f"trial={pruned}").output
    assert "COMPLETED" in shown and "pruned: other trials do better" in shown and "learning_rate=" in shown, shown
    assert "finished already" in mine("resume", run).output


def test_tasks_that_run_at_once_share_a_study_and_one_that_is_requeued_keeps_its_trial(desk):
    mine = desk("n1", "n2")
    job = mine.submit("--ntasks=1", *SEARCH, "--trials=3", **FLAGS)
    run = mine.folder / "run"
    assert settled(lambda: bool(list(run.glob("trial=1/checkpoint-*/manifest.json"))), 60)
    before = trial.read(run / "trial=1").settings
    assert mine.sh("scontrol", "requeue", f"{job}_1").returncode == 0
    waited = mine("wait", job, limit_s=300)
    assert waited.returncode == 0 and "3 COMPLETED" in waited.output, waited.output
    assert len(mine.events("started", "run/trial=1")) == 2 and "going on from" in mine("logs", run / "trial=1").output
    assert trial.read(run / "trial=1").settings == before
    found = study.Study(run).study.get_trials()
    assert sorted(each.user_attrs["trial"] for each in found) == [0, 1, 2]
    assert len({json.dumps(each.params) for each in found}) == 3
    assert {each.state.name for each in found} <= {"COMPLETE", "PRUNED"}
