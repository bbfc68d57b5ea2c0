"""Scores by name: those of scikit-learn are its own, and what cannot score a task is refused before anything runs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import config, direction, measures, results, scores
from ringtune.train.checkpoint import Best
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.journal import closing_message
from ringtune.train.predict.run import SCORE_AGAIN
from ringtune.train.task.classification import Classification, softmax
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression
from sklearn import metrics

TWO, THREE, NUMBER = Classification(None, ("no", "yes")), Classification(None, ("a", "b", "c")), Regression(None)
#: A few of scikit-learn's names, and its function of labels, predictions and probabilities of every class.
OF_TWO = {
    "balanced_accuracy": lambda y, guess, p: metrics.balanced_accuracy_score(y, guess),
    "precision": lambda y, guess, p: metrics.precision_score(y, guess, zero_division=0),
    "roc_auc": lambda y, guess, p: metrics.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, guess, p: metrics.average_precision_score(y, p[:, 1]),
    "neg_log_loss": lambda y, guess, p: -metrics.log_loss(y, p),
    "f1_macro": lambda y, guess, p: metrics.f1_score(y, guess, average="macro", zero_division=0),
}
OF_THREE = {
    "f1_weighted": lambda y, guess, p: metrics.f1_score(y, guess, average="weighted", zero_division=0),
    "roc_auc_ovr": lambda y, guess, p: metrics.roc_auc_score(y, p, multi_class="ovr"),
    "recall_macro": lambda y, guess, p: metrics.recall_score(y, guess, average="macro", zero_division=0),
}


def rows_of(task, seed):
    """Return outputs and labels of 40 rows, each class among them."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(40, task.width)).astype(np.float32), np.arange(40) % task.width


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "known"), [(TWO, OF_TWO), (THREE, OF_THREE)])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_score_by_name_is_scikit_learns(task, known, seed):
    outputs, labels = rows_of(task, seed)
    found = measures.values(measures.choose(",".join(known), task), task, outputs, labels)
    guesses = outputs.argmax(axis=1)
    expected = {name: of(labels, guesses, softmax(outputs)) for name, of in known.items()}
    assert found == pytest.approx(expected, abs=1e-9)


def test_scores_of_several_labels_are_scikit_learns_by_the_thresholds_of_the_task():
    task = MultiLabel(None, ("a", "b", "c"))
    draw = np.random.default_rng(3)
    outputs, labels = draw.normal(size=(20, 3)).astype(np.float32), draw.integers(0, 2, (20, 3)).astype(np.int8)
    names = "jaccard_samples,recall_macro,roc_auc,average_precision"
    found = measures.choose(names, task)
    low = task.at(0.2)
    for each in (task, low):
        guesses, shares = each.given(outputs), each.answers(outputs).probabilities
        assert measures.values(found, each, outputs, labels) == {
            "jaccard_samples": pytest.approx(metrics.jaccard_score(labels, guesses, average="samples")),
            "recall_macro": pytest.approx(metrics.recall_score(labels, guesses, average="macro")),
            "roc_auc": pytest.approx(metrics.roc_auc_score(labels, shares)),
            "average_precision": pytest.approx(metrics.average_precision_score(labels, shares)),
        }
    assert measures.values(found, task, outputs, labels) != measures.values(found, low, outputs, labels)


def test_scores_of_a_number_are_scikit_learns():
    outputs = np.array([[0.5], [2.0], [4.0]], dtype=np.float32)
    labels = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    found = measures.values(measures.choose("r2,neg_max_error", NUMBER), NUMBER, outputs, labels)
    assert found == {"r2": pytest.approx(metrics.r2_score(labels, outputs[:, 0])), "neg_max_error": -1.0}


def test_the_tasks_own_scores_are_not_computed_twice_and_the_deciding_one_is_taken_along():
    assert list(measures.choose("accuracy, f1", TWO)) == []
    assert list(measures.choose(None, TWO, "eval_roc_auc")) == ["roc_auc"]
    assert list(measures.choose("roc_auc", TWO, "roc_auc")) == ["roc_auc"]
    assert list(measures.choose(None, TWO, "loss")) == []


def test_a_score_that_rows_of_one_class_leave_undefined_is_nan():
    outputs, labels = rows_of(TWO, 1)
    found = measures.choose("roc_auc,neg_log_loss", TWO)
    assert all(math.isnan(each) for each in measures.values(found, TWO, outputs, np.zeros_like(labels)).values())


@pytest.mark.parametrize(
    ("task", "name", "reason"),
    [
        (TWO, "rocauc", "the nearest is roc_auc"),
        (TWO, "r3", "scikit-learn has no score of that name"),
        (THREE, "roc_auc", "it cannot score classes a, b, c"),
        (THREE, "precision", "it cannot score classes a, b, c"),
        (NUMBER, "f1_macro", "it cannot score a number"),
        (TWO, "no_such_module:score", "no_such_module cannot be imported: ModuleNotFoundError"),
        (TWO, "math:no_such_function", "there is no function 'no_such_function' in it"),
        (TWO, "math:pi", "there is no function 'pi' in it"),
        (TWO, "math:hypot", "it fails on made-up rows: TypeError"),
    ],
)
def test_what_cannot_score_the_task_is_refused_by_name(task, name, reason):
    with pytest.raises(UsageError) as caught:
        measures.choose(name, task)
    assert f"--metrics {name}" in str(caught.value) and reason in str(caught.value)


OWN = """
import numpy

def cost(labels, predictions):
    return -10.0 * numpy.mean((labels == 1) & (predictions == 0))

def margin(labels, predictions, outputs):
    return numpy.abs(outputs[:, 1] - outputs[:, 0]).mean()

def words(labels, predictions):
    return "good"

def strict(labels, predictions):
    if len(labels) > 10:
        raise KeyError("more than ten")
    return 1

def accuracy(labels, predictions):
    return 0.0
"""


@pytest.mark.parametrize("name", ["mine.py", "mine", "{}/mine.py"])
def test_a_function_of_ones_own_is_found_in_a_file_or_in_the_working_folder(tmp_path, monkeypatch, name):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    name = name.format(tmp_path)
    outputs, labels = rows_of(TWO, 1)
    found = measures.values(measures.choose(f"{name}:cost,{name}:margin", TWO), TWO, outputs, labels)
    missed = np.mean((labels == 1) & (outputs.argmax(axis=1) == 0))
    assert found == {"cost": -10.0 * missed, "margin": pytest.approx(np.abs(outputs[:, 1] - outputs[:, 0]).mean())}


def test_a_function_of_ones_own_that_fails_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    mine = f"{tmp_path}/mine.py"
    for name, reason in (
        ("words", "it returns str, not a number"),
        ("accuracy", "there are two scores named accuracy"),
        ("cost,{0}:cost", "there are two scores named cost"),
    ):
        with pytest.raises(UsageError, match=reason):
            measures.choose(f"{mine}:{name}".format(mine), TWO)
    outputs, labels = rows_of(TWO, 1)
    strict = measures.choose(f"{mine}:strict", TWO)["strict"]
    assert strict(TWO, outputs[:4], labels[:4]) == 1.0
    with pytest.raises(UsageError, match="it fails on 40 rows: KeyError: 'more than ten'"):
        strict(TWO, outputs, labels)


@pytest.mark.parametrize(
    ("more", "todo"),
    [
        ({}, "correct it; the same command goes on from the last checkpoint"),
        ({"then": SCORE_AGAIN}, "correct it; the same command scores what is predicted already"),
    ],
)
def test_what_the_same_command_does_after_a_failure_is_true_of_training_and_of_prediction(tmp_path, more, todo):
    (tmp_path / "mine.py").write_text(OWN)
    strict = measures.choose(f"{tmp_path}/mine.py:strict", TWO, **more)["strict"]
    with pytest.raises(UsageError, match=todo):
        strict(TWO, *rows_of(TWO, 1))


def test_a_function_or_module_that_ends_the_program_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import sys\ndef exits(labels, predictions): sys.exit(3)\n"
        "def later(labels, predictions): return 1 if len(labels) < 10 else sys.exit(3)\n"
    )
    (tmp_path / "program.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--unknown'])\n")
    with pytest.raises(
        UsageError, match="mine.py:exits: it fails on made-up rows: it ends the program, by SystemExit: 3"
    ):
        measures.choose(f"{tmp_path}/mine.py:exits", TWO)
    with pytest.raises(UsageError, match=r"program\.py cannot be imported: it ends the program.*__name__"):
        measures.choose(f"{tmp_path}/program.py:cost", TWO)
    later = measures.choose(f"{tmp_path}/mine.py:later", TWO)["later"]
    with pytest.raises(UsageError, match="mine.py:later: it fails on 40 rows: it ends the program, by SystemExit: 3"):
        later(TWO, *rows_of(TWO, 1))


@pytest.mark.parametrize("name", ["num_rows", "confusion_matrix", "labels", "num_rows_mm", "accuracy_mm"])
def test_a_function_named_as_what_else_an_evaluation_writes_is_refused(tmp_path, name):
    (tmp_path / "mine.py").write_text(f"def {name}(labels, predictions):\n    return 7.0\n")
    with pytest.raises(UsageError, match=f"mine.py:{name}: an evaluation writes something else as {name}"):
        measures.choose(f"{tmp_path}/mine.py:{name}", TWO)


def test_a_score_that_has_the_number_of_rows_in_its_name_is_shown():
    assert list(
        results.group([({}, {"eval_num_rows": 4, "eval_num_rows_mm": 4, "eval_of_num_rows": 1.0})])[0].scores
    ) == ["of_num_rows"]


def test_the_deciding_score_may_be_one_by_name():
    assert scores.deciding_score(TWO, None, "eval_roc_auc", ["roc_auc"]) == "roc_auc"
    with pytest.raises(UsageError, match="roc_auc is no score of classification"):
        scores.deciding_score(TWO, None, "roc_auc")


MINE = ("--model_name_or_path", "m", "--train_file", "t.csv", "--metrics", "f1_macro, mine.py:cost")


def parsed(*words):
    return config.parse([*MINE, *words])[0]


def test_the_direction_of_a_function_that_decides_has_to_be_said():
    for best in ("cost", "eval_cost"):
        with pytest.raises(UsageError, match=r"of mine.py:cost is better; .*_better true .*_better false"):
            parsed("--metric_for_best_model", best)
        for said in (True, False):
            found = parsed("--metric_for_best_model", best, "--greater_is_better", str(said))
            assert direction.greater_is_better(found.greater_is_better, "cost") is said
    for best, greater in (("f1_macro", True), ("loss", False), ("accuracy", True)):
        assert direction.greater_is_better(parsed("--metric_for_best_model", best).greater_is_better, best) is greater
    assert parsed().greater_is_better is None


def test_a_run_from_before_goes_on_with_the_direction_that_it_had():
    now = [parsed("--metric_for_best_model", "cost", "--greater_is_better", said) for said in ("true", "false")]
    saved = {**dataclasses.asdict(now[0]), "greater_is_better": None}
    config.refuse_changes(saved, now[0])
    with pytest.raises(UsageError, match="--greater_is_better: False is not what the run to be resumed has, None"):
        config.refuse_changes(saved, now[1])
    with pytest.raises(UsageError, match="--greater_is_better: True is not"):
        config.refuse_changes(dataclasses.asdict(parsed()), parsed("--greater_is_better", "true"))


def test_a_run_goes_on_with_the_function_that_decided_before():
    decides = ("--metric_for_best_model", "cost", "--greater_is_better", "false")
    saved = dataclasses.asdict(parsed(*decides))
    config.refuse_changes(saved, parsed(*decides, "--metrics", "f1_macro,mine.py:cost"))  # others may change
    with pytest.raises(UsageError, match=r"new.py:cost would decide .*mine.py:cost does; the same function"):
        config.refuse_changes(saved, parsed(*decides, "--metrics", "new.py:cost"))
    config.refuse_changes(dataclasses.asdict(parsed()), parsed("--metrics", "new.py:cost"))  # it decides nothing
    for same in ("./mine.py:cost", "/home/me/mine.py:cost"):
        config.refuse_changes(saved, parsed(*decides, "--metrics", same))
    with pytest.raises(UsageError, match="other/mine.py:cost would decide"):
        config.refuse_changes(saved, parsed(*decides, "--metrics", "other/mine.py:cost"))


def test_a_run_without_a_best_model_says_that_it_left_the_last_one():
    asked = TrainConfig("m", train_file="t.csv", load_best_model_at_end=True)
    line = "there is no best model: cost was not defined at any evaluation; the last model is left"
    assert line in closing_message(asked, "", "cost", Best(None, 0, 3), 0)
    for found, best in ((asked, Best(0.5, 2)), (dataclasses.replace(asked, load_best_model_at_end=False), Best())):
        assert "no best model" not in closing_message(found, "", "cost", best, 0)
