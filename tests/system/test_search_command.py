"""``ringtune-train sweep --search optuna`` as a user starts it: trials pruned, interrupted, killed, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import Workshop, digests, records, run_command
from ringtune.train import study, trial
from ringtune.train.contract import EXIT_PRUNED, EXIT_REQUEUE, FINISHED_FILE

pytestmark = pytest.mark.system
TRAIN = (sys.executable, "-P", "-m", "ringtune.train.cli")
SPACE = ("learning_rate=1e-5..1e-2:log", "optim=adamw_torch,lamb")


def words(workshop: Workshop, folder, trials: int, **changes: object) -> list[str]:
    settings = {
        "learning_rate": None,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "metric_for_best_model": "loss",
        "mode": "exact",
        "num_shards": 2,
        "disable_tqdm": "true",
        "save_total_limit": 2,
        **changes,
    }
    swept = [word for each in SPACE for word in ("--sweep", each)]
    flags = workshop.arguments(folder, **settings)
    return [*TRAIN, "sweep", "--search", "optuna", "--trials", str(trials), "--pruning", "2", *swept, *flags]


def start_and_stop_at(command: list[str], wanted: str, number: int) -> tuple[int, str]:
    """Start a search, send the signal to it and its trial when a line has the wanted words; return code and output."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    seen = ""
    for line in process.stdout:
        seen += line
        if wanted in line:
            break
    os.killpg(process.pid, number)
    return process.wait(120), seen + process.stdout.read()


def plant(folder, losses: tuple[tuple[float, float], ...]) -> study.Study:
    """Make a study whose first trials have ended, with these losses at their evaluations."""
    mine = study.Study(folder, {"space": list(SPACE), "seed": 42, "pruning": 2})
    for number, values in enumerate(losses):
        mine.take(number)
        for evaluation, value in enumerate(values, start=1):
            mine.is_bad(number, evaluation, value)
        entry = trial.outcome_entry("loss", values[-1], greater_is_better=False, pruned=False)
        (mine.run_of(number) / FINISHED_FILE).write_text(json.dumps(entry))
    return mine


def test_a_search_that_is_interrupted_goes_on_with_its_trial_and_prunes_it_at_two_ranks(workshop, tmp_path):
    mine = plant(tmp_path, ((0.1, 0.1), (9.0, 0.1)))  # so that others are pruned at their second evaluation
    code, output = start_and_stop_at(words(workshop, tmp_path, 3), "step 4: eval_loss", signal.SIGINT)
    assert code == EXIT_REQUEUE and "Traceback" not in output, output
    assert output.count("ended before, loss 0.1000") == 2 and "pruned" not in output
    assert not mine.has_ended(2)
    settings = mine.take(2)
    done = run_command([*words(workshop, tmp_path, 3), "--num_proc", "2"])
    assert done.returncode == 0 and "Traceback" not in done.output, done.output
    assert "going on from" in done.output and "pruned after step 8 of 12" in done.output, done.output
    run = tmp_path / "trial=2"
    assert json.loads((run / FINISHED_FILE).read_bytes())["stopped_at"] == 8
    assert trial.was_pruned(run) and (run / "model.safetensors").exists()
    evaluations = [(each["step"], each["eval_loss"]) for each in records(run, "eval")]
    found = study.Study(tmp_path).study.get_trials()
    assert [each.state.name for each in found] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert [step for step, _ in evaluations] == [4, 8]
    assert found[2].intermediate_values == {number: loss for number, (_, loss) in enumerate(evaluations, start=1)}
    line = done.output.splitlines()[-2]
    assert line.split()[:4] == ["2", settings["learning_rate"], settings["optim"], "pruned"], done.output
    again = run_command(words(workshop, tmp_path, 3))
    assert again.returncode == 0 and "ended before, pruned at loss" in again.output, again.output
    assert "rank 0" not in again.output  # nothing was started


@pytest.mark.long
def test_a_search_that_is_killed_again_and_again_has_the_trials_and_scores_of_one_that_was_not(workshop, tmp_path):
    whole = run_command(words(workshop, tmp_path / "whole", 5), limit_s=300)
    assert whole.returncode == 0, whole.output
    command = words(workshop, tmp_path / "killed", 5)
    for wanted in ("trial 0 of 5", "step 4: eval_loss", "trial 2 of 5", "step 8: eval_loss"):
        start_and_stop_at(command, wanted, signal.SIGKILL)
    done = run_command(command, limit_s=300)
    assert done.returncode == 0, done.output
    one, other = (study.Study(tmp_path / name).study.get_trials() for name in ("whole", "killed"))
    assert len(one) == 5 and "PRUNED" in {each.state.name for each in one}, whole.output
    for first, second in zip(one, other, strict=True):
        assert (first.params, first.state, first.values) == (second.params, second.state, second.values)
        assert first.intermediate_values == second.intermediate_values
    for number in range(5):
        run = f"trial={number}"
        step = json.loads((tmp_path / "whole" / run / FINISHED_FILE).read_bytes())["stopped_at"]
        assert digests(tmp_path / "whole" / run, step) == digests(tmp_path / "killed" / run, step)
    pruned = next(each.number for each in one if each.state.name == "PRUNED")
    alone = run_command([*TRAIN, "--config", str(tmp_path / "killed" / f"trial={pruned}" / "config.yaml")])
    assert alone.returncode == EXIT_PRUNED and "finished already" in alone.output, alone.output
    table = [line.split()[0] for line in done.output.splitlines()[-7:]]
    assert table == ["trial", "0", "1", "2", "3", "4", "best:"], done.output
