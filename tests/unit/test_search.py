"""Searches: their space, the trials that are drawn from it, and the study that keeps them. No training."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ringtune.train import compared, config, results, search, space, study, trial, trials
from ringtune.train.config import FIELDS
from ringtune.train.contract import EXIT_PRUNED, FINISHED_FILE, METRICS_FILE, TRIAL_FILE, UsageError, holds_run
from ringtune.train.pruning import judge_finished, report_trial, require_scores

TYPES = {name: each.type for name, each in FIELDS.items()}
WORDS = ("learning_rate=1e-5..1e-3:log", "warmup_ratio=0.0..0.2", "reinit_layers=0..4", "optim=adamw_torch,lamb")
SPACE = space.parse(WORDS, TYPES)
FACTS = {"space": list(WORDS), "seed": 7, "pruning": 1}


def end(folder, number: int, value: float, *, pruned: bool = False, greater: bool = True) -> None:
    """Let the run of a trial end as its loop would."""
    run = folder / f"trial={number}"
    entry = trial.outcome_entry("accuracy", value, greater_is_better=greater, pruned=pruned)
    (run / FINISHED_FILE).write_text(json.dumps({"best": {"score": value}, **entry}))


# Drawing


def drawn(folder, num_trials: int, seed: int = 7) -> list[dict[str, str]]:
    """Return the settings of trials that run one after the other, with scores that follow from them."""
    found = []
    for number in range(num_trials):
        mine = study.Study(folder, {**FACTS, "seed": seed})  # each time another process
        found.append(mine.take(number))
        end(folder, number, -abs(float(found[-1]["learning_rate"]) - 3e-4))
    return found


def test_the_same_seed_gives_the_same_trials_and_another_one_others(tmp_path):
    first = drawn(tmp_path / "a", 14)  # the last ones by TPE
    assert drawn(tmp_path / "b", 14) == first
    assert drawn(tmp_path / "c", 2, seed=8)[0] != first[0]
    assert len({json.dumps(each) for each in first}) == 14
    for each in first:
        assert 1e-5 <= float(each["learning_rate"]) <= 1e-3 and 0 <= float(each["warmup_ratio"]) <= 0.2
        assert each["reinit_layers"] in "01234" and each["optim"] in SPACE["optim"].values
    last = study.Study(tmp_path / "a").study.get_trials()[-1]
    assert last.params["learning_rate"] == float(first[-1]["learning_rate"])


def test_no_trial_is_drawn_twice_where_there_is_another(tmp_path):
    words = ["reinit_layers=0..2", "optim=adamw_torch,lamb"]
    for seed in range(4):
        mine = study.Study(tmp_path / str(seed), {**FACTS, "space": words, "seed": seed})
        assert len({json.dumps(mine.take(number)) for number in range(5)}) == 5


# The study


def test_a_trial_that_is_asked_for_again_is_the_same_also_after_a_kill(tmp_path):
    mine = study.Study(tmp_path, FACTS)
    settings = mine.take(0)
    path = tmp_path / "trial=0" / TRIAL_FILE
    path.unlink()  # killed before it was written
    assert study.Study(tmp_path, FACTS).take(0) == settings
    assert trial.read(path.parent).settings == settings and not holds_run(path.parent)
    assert len(mine.study.get_trials()) == 1


def test_jobs_that_ask_at_once_get_different_trials_and_none_is_lost(tmp_path):
    barrier = threading.Barrier(4)

    def take(number: int) -> dict[str, str]:
        barrier.wait()
        return study.Study(tmp_path, FACTS).take(number)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(take, range(4)))
    assert len({json.dumps(each) for each in found}) == 4
    mine = study.Study(tmp_path)
    assert sorted(each.user_attrs["trial"] for each in mine.study.get_trials()) == [0, 1, 2, 3]
    assert [mine.take(number) for number in range(4)] == found


def test_two_jobs_that_draw_the_same_trial_agree_on_the_first(tmp_path):
    mine = study.Study(tmp_path, FACTS)
    other = study.draw([], SPACE, 8, 0)
    mine.study.add_trial(study.draw([], SPACE, 7, 0))
    mine.study.add_trial(other)
    assert float(mine.take(0)["learning_rate"]) != other.params["learning_rate"]
    end(tmp_path, 0, 0.5)
    mine.settle()
    assert [each.value for each in mine.study.get_trials()] == [-0.5, None]


def test_what_runs_brought_is_told_once_whoever_opens_the_study_next(tmp_path):
    mine = study.Study(tmp_path, FACTS)
    for number in range(3):
        mine.take(number)
    mine.is_bad(1, 1, -0.25)
    end(tmp_path, 0, 0.75)
    end(tmp_path, 1, 0.25, pruned=True)
    end(tmp_path, 2, float("nan"))
    for _ in range(2):
        study.Study(tmp_path, FACTS).settle()
    found = study.Study(tmp_path).study.get_trials()
    assert [(each.state.name, each.value) for each in found] == [
        ("COMPLETE", -0.75),
        ("PRUNED", -0.25),
        ("COMPLETE", float("inf")),
    ]
    assert mine.has_ended(0)
    with pytest.raises(UsageError, match="its study has no trial 9"):
        mine.has_ended(9)


def test_a_trial_is_bad_when_it_is_worse_than_the_median_of_those_that_ended(tmp_path):
    mine = study.Study(tmp_path, {**FACTS, "pruning": 2})
    for number, value in enumerate((0.9, 0.5)):
        mine.take(number)
        assert not mine.is_bad(number, 1, -value)  # fewer than two have ended
        mine.is_bad(number, 2, -0.99)
        end(tmp_path, number, value)
        mine.settle()
    mine.take(2)
    mine.take(3)
    assert mine.is_bad(2, 1, -0.6) and mine.is_bad(2, 1, -0.6)  # asked again after a kill
    assert not mine.is_bad(3, 1, -0.8)
    assert mine.is_bad(3, 2, -0.85)  # noted, and then killed: it goes on from the evaluation before
    assert not mine.is_bad(3, 1, -0.8)
    assert not mine.is_bad(0, 2, 0.0), "a run that goes on behind the end of its trial is let be"
    off = study.Study(tmp_path / "off", {**FACTS, "pruning": None})
    off.take(0)
    assert not off.is_bad(0, 1, 5.0)


def test_a_line_that_a_kill_tore_does_not_make_the_study_unreadable(tmp_path):
    settings = study.Study(tmp_path, FACTS).take(0)
    path = tmp_path / "search" / study.JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    mine = study.Study(tmp_path, FACTS)
    assert path.read_bytes() == whole
    mine.take(1)
    assert study.Study(tmp_path, FACTS).take(0) == settings


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    study.Study(tmp_path, FACTS)
    for change, message in (
        ({"seed": 8}, "it holds a search whose seed is 7, not 8"),
        ({"pruning": None}, "whose pruning is 1, not off"),
        ({"space": ["optim=lamb,sgd"]}, "not optim=lamb,sgd; the same search; --trials may change"),
    ):
        with pytest.raises(UsageError) as error:
            study.Study(tmp_path, {**FACTS, **change})
        assert message in str(error.value)
    with pytest.raises(UsageError, match="there is no study of a search"):
        study.Study(tmp_path / "other")


def test_trials_of_other_training_are_not_mixed_with_those_there_are(tmp_path):
    words = ["--model_name_or_path", "m", "--train_file", "t.csv", "--validation_file", "d.csv"]
    asked = search.Search(WORDS, SPACE, 20, 1)

    def facts(*more):
        return compared.facts_of(asked, dataclasses.asdict(config.parse([*words, *more])[0]))

    study.Study(tmp_path, facts())
    study.Study(tmp_path, facts("--output_dir", "elsewhere", "--logging_steps", "3", "--learning_rate", "1e-4"))
    for more, name in (
        (("--num_train_epochs", "5"), "num_train_epochs"),
        (("--metric_for_best_model", "loss"), "metric_for_best_model"),
        (("--model_name_or_path", "other"), "model_name_or_path"),
        (("--validation_file", "e.csv"), "validation_file"),
        (("--pseudo_file", "p.csv"), "pseudo_file"),
        (("--per_device_train_batch_size", "4"), "per_device_train_batch_size"),
    ):
        with pytest.raises(UsageError, match=f"it holds a search whose {name} is"):
            study.Study(tmp_path, facts(*more))


def test_what_decides_a_batch_or_a_score_elsewhere_is_compared_only_there(tmp_path):
    words = ["--model_name_or_path", "m", "--train_file", "t.csv", "--validation_file", "d.csv"]

    def opened(folder, *more, space_words=WORDS):
        asked = search.Search(space_words, space.parse(space_words, TYPES), 20, 1)
        return study.Study(folder, compared.facts_of(asked, dataclasses.asdict(config.parse([*words, *more])[0])))

    size, own = ("--per_device_train_batch_size", "4"), ("--metric_for_best_model", "cost", "--greater_is_better=false")
    opened(tmp_path / "set", "--global_batch_size", "8")
    opened(tmp_path / "set", "--global_batch_size", "8", *size, "--metrics", "f1_macro")
    opened(tmp_path / "a", *size)
    with pytest.raises(UsageError, match="search whose gradient_accumulation_steps is off, not 2"):
        opened(tmp_path / "a", *size, "--gradient_accumulation_steps", "2")
    opened(tmp_path / "b")
    opened(tmp_path / "b", "--gradient_accumulation_steps", "2")  # parts of the same 32 rows
    searched = ("per_device_train_batch_size=2,4,8,16",)
    opened(tmp_path / "c", space_words=searched)
    with pytest.raises(UsageError, match="search whose gradient_accumulation_steps is off, not 2"):
        opened(tmp_path / "c", "--gradient_accumulation_steps", "2", space_words=searched)
    opened(tmp_path / "d", "--metrics", "mine.py:cost", *own)
    opened(tmp_path / "d", "--metrics", "mine.py:cost,f1_macro", *own)
    with pytest.raises(UsageError, match="it holds a search whose metrics is mine.py:cost, not other.py:cost"):
        opened(tmp_path / "d", "--metrics", "other.py:cost", *own)
    before = study.Study(tmp_path / "d")  # as a study was when no direction had to be said
    before.study.set_user_attr("facts", {**before.facts, "greater_is_better": None})
    opened(tmp_path / "d", "--metrics", "mine.py:cost", *own[:2], "--greater_is_better=true")
    with pytest.raises(UsageError, match="it holds a search whose greater_is_better is off, not False"):
        opened(tmp_path / "d", "--metrics", "mine.py:cost", *own)


def test_what_an_older_study_did_not_keep_holds_from_now_on(tmp_path):
    study.Study(tmp_path, FACTS)
    study.Study(tmp_path, {**FACTS, "pseudo_file": "p.csv"})
    with pytest.raises(UsageError, match="it holds a search whose pseudo_file is p.csv, not off"):
        study.Study(tmp_path, {**FACTS, "pseudo_file": None})
    study.Study(tmp_path / "b", FACTS).take(0)
    (tmp_path / "b" / "trial=0" / "config.yaml").write_text("pseudo_file: q.csv\n")  # as its trials were trained
    with pytest.raises(UsageError, match="it holds a search whose pseudo_file is q.csv, not off"):
        study.Study(tmp_path / "b", {**FACTS, "pseudo_file": None})
    study.Study(tmp_path / "b", {**FACTS, "pseudo_file": "q.csv"})


def test_a_trial_whose_settings_are_refused_together_does_not_end_the_search(tmp_path, monkeypatch):
    """A stand-in for the training command: it ends with the code that is asked for."""
    codes = iter((2,))
    asked = search.Search(
        ("optim=adamw_torch,lamb,sgd,adafactor",), space.parse(["optim=adamw_torch,lamb,sgd,adafactor"], TYPES), 3, None
    )
    monkeypatch.setattr(trials, "_command", lambda *each: [sys.executable, "-c", f"raise SystemExit({next(codes)})"])
    options = argparse.Namespace(num_proc=None, dry_run=False, output_dir=tmp_path)
    flags = ["--model_name_or_path", "m", "--train_file", "t.csv", "--validation_file", "d.csv"]
    assert trials.run_all(asked, options, flags) == 2  # the first of all
    codes = iter((1, 2, 2))
    assert trials.run_all(asked, options, flags) == 2
    mine = study.Study(tmp_path)
    mine.take(0)
    end(tmp_path, 0, 0.5)
    codes = iter((2, 2))
    assert trials.run_all(asked, options, flags) == 1 and next(codes, None) is None


def test_a_missing_optuna_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"optuna is not installed; optuna 5; pip install 'ringtune\[search\]'"):
        study.Study(tmp_path, FACTS)


# The run and the table


def test_a_run_that_was_pruned_says_so_again(tmp_path):
    trial.write(tmp_path / "trial=0", 0, {"learning_rate": "1e-5"})
    end(tmp_path, 0, 0.5, pruned=True)
    assert judge_finished(tmp_path / "trial=0", None, print) == EXIT_PRUNED
    require_scores(None, evaluates=False)
    with pytest.raises(UsageError, match="no validation rows to compare trials by"):
        require_scores(trial.read(tmp_path / "trial=0"), evaluates=False)


def test_a_run_reports_its_trial_and_is_refused_without_its_search(tmp_path):
    trial.write(tmp_path / "trial=0", 0, {"optim": "lamb"})
    lines: list[str] = []
    assert report_trial(None, lines.append) is None
    with pytest.raises(UsageError, match="search: there is no study of a search"):
        report_trial(trial.read(tmp_path / "trial=0"), lines.append)
    study.Study(tmp_path, FACTS).take(0)
    report_trial(trial.read(tmp_path / "trial=0"), lines.append)
    end(tmp_path, 0, 0.5)
    study.Study(tmp_path).settle()
    report_trial(trial.read(tmp_path / "trial=0"), lines.append)
    assert [line.startswith(f"trial 0 of the search in {tmp_path}: learning_rate=") for line in lines] == [True, True]
    assert "has ended" not in lines[0] and lines[1].endswith("it has ended, and is not noted there any more")


def test_the_table_of_a_search_has_a_line_for_each_trial_and_names_the_best(tmp_path):
    for number, (value, pruned) in enumerate(((0.75, False), (0.875, False), (0.9, True))):
        run = tmp_path / f"trial={number}"
        trial.write(run, number, {"learning_rate": f"{number + 1}e-05"})
        (run / METRICS_FILE).write_text(json.dumps({"event": "eval", "step": 1, "eval_accuracy": value}) + "\n")
        end(tmp_path, number, value, pruned=pruned)
    axes = search.Search((), {}, 4, None).axes
    rows = results.collect(tmp_path, axes)
    assert [(row.num_finished, row.num_pruned) for row in rows] == [(1, 0), (1, 0), (0, 1), (0, 0)]
    assert [line.split() for line in results.results_table(rows).splitlines()] == [
        ["trial", "learning_rate", "finished", "accuracy"],
        ["0", "1e-05", "1", "of", "1", "0.7500", "±", "0.0000"],
        ["1", "2e-05", "1", "of", "1", "0.8750", "±", "0.0000"],
        ["2", "3e-05", "pruned", "0.9000", "±", "0.0000"],
        ["3", "-", "0", "of", "1", "-"],
    ]
    assert results.best_trial(tmp_path, axes) == f"best: accuracy 0.8750, learning_rate=2e-05: {tmp_path}/trial=1"
    assert results.best_trial(tmp_path / "none", axes) == results.best_trial(tmp_path, {"seed": ["1"]}) == ""
