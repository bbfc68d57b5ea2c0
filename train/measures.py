"""Scores that a user names: those of scikit-learn, and functions of one's own.

A name is one that scikit-learn's ``get_scorer`` knows, with its meaning there, so that more is always better
(``neg_log_loss``), or ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``. Each is tried on made-up rows before anything is
trained: what cannot score the task's answers is refused at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from ringtune.train.columns import nearest, split_names
from ringtune.train.contract import UsageError
from ringtune.train.scores import Answers
from ringtune.train.task import Task

Measure = Callable[[Task, np.ndarray, np.ndarray], float]
"""From a task, outputs of its model [N, W] and labels [N] to a score, NaN where these rows leave it undefined."""

_FLAG = "--metrics"
_MADE_UP_ROWS = 2  # of each class
FROM_CHECKPOINT = "the same command goes on from the last checkpoint"
#: What code of a user raises; SystemExit too, which would end the command without a word that says why.
_RAISED = (Exception, SystemExit)
#: What an evaluation, or a report of a prediction, has beside scores, under names as theirs.
_TAKEN = ("num_rows", "confusion_matrix", "entities", "labels", "num_masked", "num_words")
_MISMATCHED = "_mm"  # ends the scores of MNLI's other validation rows


def choose(
    names: str | None, task: Task, best: str | None = None, *, then: str = FROM_CHECKPOINT
) -> dict[str, Measure]:
    """Return the scores that a flag such as ``roc_auc,mine.py:cost`` names, without those the task has anyway.

    best: ``--metric_for_best_model``, which may be a name of scikit-learn, too. A function's score has the function's
    name. then: what the same command does after a function that failed is corrected. Raises UsageError for one that
    cannot score the task.
    """
    asked = list(split_names(names))
    best = (best or "").removeprefix("eval_")
    if best and best not in (*task.score_names, *asked) and _is_known(best):
        asked.append(best)
    if asked and task.answers(np.zeros((1, task.width), dtype=np.float32)) is None:
        asked = [name for name in asked if name not in task.score_names]
        if asked:
            raise UsageError(
                f"{_FLAG} {asked[0]}",
                f"scores by name are of one answer for each row, which {task.kind} does not give",
                legal=f"its own: {', '.join(task.score_names)}",
            )
    chosen: dict[str, Measure] = {}
    for name in asked:
        if name in task.score_names:
            continue
        measure, shown = (_own if ":" in name else _named)(name, task), name.rpartition(":")[2]
        if shown in chosen or (":" in name and shown in task.score_names):
            raise UsageError(f"{_FLAG} {name}", f"there are two scores named {shown}", legal="each name once")
        if ":" in name and shown.removesuffix(_MISMATCHED) in (*_TAKEN, *task.score_names):
            raise UsageError(
                f"{_FLAG} {name}",
                f"an evaluation writes something else as {shown}, which the score would be taken for",
                legal="a function of another name",
            )
        chosen[shown] = _nan_where_undefined(measure, name, then)
    return chosen


def values(measures: Mapping[str, Measure], task: Task, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the score of each measure. task: with what it has fitted since the measures were chosen."""
    return {name: measure(task, outputs, labels) for name, measure in measures.items()}


# Scores of scikit-learn


def _is_known(name: str) -> bool:
    from sklearn.metrics import get_scorer_names  # slow to import, and few runs need it here

    return name in get_scorer_names()


def _named(name: str, task: Task) -> Measure:
    from sklearn.metrics import get_scorer_names

    if name not in get_scorer_names():
        legal = [
            *task.score_names,
            *(each for each in get_scorer_names() if _failure(_scored(each), task) is None),
        ]
        near = nearest(name, legal)
        raise UsageError(
            f"{_FLAG} {name}",
            "scikit-learn has no score of that name",
            legal=f"MODULE:FUNCTION, or one of {', '.join(legal)}",
            todo=f"the nearest is {near}" if near else "",
        )
    measure = _scored(name)
    reason = _failure(measure, task)
    if reason is not None:
        raise UsageError(f"{_FLAG} {name}", f"it cannot score {task.describe()}: {reason}", legal="one that can")
    return measure


def _scored(name: str) -> Measure:
    """Return a score of scikit-learn, which raises what scikit-learn raises."""
    from sklearn.metrics import get_scorer

    scorer = get_scorer(name)

    def measure(task: Task, outputs: np.ndarray, labels: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes without rows: the score says it
            return float(scorer(_estimator(task), outputs, labels))

    return measure


def _answers(task: Task, outputs: np.ndarray) -> Answers:
    found = task.answers(outputs)
    assert found is not None  # refused in `choose`
    return found


def _estimator(task: Task) -> Any:
    """Return what scikit-learn takes for a fitted model: its rows are the outputs of ours."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Classifier(ClassifierMixin, BaseEstimator):
        # Where a row may have several labels, scikit-learn takes each for a choice of its own.
        classes_ = [np.arange(2)] * task.width if task.has_several_labels else np.arange(task.width)

        def predict(self, outputs: np.ndarray) -> np.ndarray:
            return _answers(task, outputs).predictions

        def predict_proba(self, outputs: np.ndarray) -> np.ndarray:
            probabilities = _answers(task, outputs).probabilities
            assert probabilities is not None
            return probabilities

    class Regressor(RegressorMixin, BaseEstimator):
        fitted_ = True

        def predict(self, outputs: np.ndarray) -> np.ndarray:
            return _answers(task, outputs).predictions

    return Regressor() if task.kind == "regression" else Classifier()


# Functions of one's own


def _own(name: str, task: Task) -> Measure:
    module_name, _, function_name = name.rpartition(":")
    function = getattr(_module(module_name, name), function_name, None)
    if not callable(function):
        raise UsageError(
            f"{_FLAG} {name}", f"there is no function {function_name!r} in it", legal="function(labels, predictions)"
        )
    takes_outputs = "outputs" in _parameters(function)

    def measure(task: Task, outputs: np.ndarray, labels: np.ndarray) -> float:
        more = {"outputs": outputs} if takes_outputs else {}
        score = function(labels, _answers(task, outputs).predictions, **more)
        if not isinstance(score, Real):
            raise TypeError(f"it returns {type(score).__name__}, not a number")
        return float(score)

    reason = _failure(measure, task)
    if reason is not None:
        raise UsageError(
            f"{_FLAG} {name}",
            f"it fails on made-up rows: {reason}",
            legal="function(labels, predictions), with outputs as a third parameter if it needs them, giving a number",
        )
    return measure


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's parameters; none of one that is not written in Python and does not say."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return []


def _module(name: str, asked: str) -> Any:
    """Return a module of a file, or of that name: in the working folder first, which is not otherwise imported from."""
    file = Path(name if name.endswith(".py") else name.replace(".", "/") + ".py").expanduser()
    try:
        if not file.is_file():
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except _RAISED as error:  # whatever a user's module raises
        raise UsageError(
            f"{_FLAG} {asked}",
            f"{name} cannot be imported: {_in_a_line(error)}",
            legal="an installed module, or a file of the working folder",
            todo="run its own program under if __name__ == '__main__'" if isinstance(error, SystemExit) else "",
        ) from None


# What may go wrong


def _failure(measure: Measure, task: Task) -> str | None:
    """Return why a score cannot be computed of made-up rows with every class, None if it can."""
    labels = _made_up_labels(task)
    outputs = np.random.Generator(np.random.Philox(0)).normal(size=(len(labels), task.width)).astype(np.float32)
    try:
        measure(task, outputs, labels)
    except _RAISED as error:  # whatever scikit-learn or a user's function raises
        return _in_a_line(error)
    return None


def _made_up_labels(task: Task) -> np.ndarray:
    if task.has_several_labels:
        return np.concatenate([np.eye(task.width), 1 - np.eye(task.width)]).astype(np.int8)
    labels = np.tile(np.arange(max(task.width, 2)), _MADE_UP_ROWS)
    return labels.astype(np.float32) + np.float32(0.5) if task.kind == "regression" else labels


def _nan_where_undefined(measure: Measure, name: str, then: str) -> Measure:
    """Return a score that is NaN where it is not defined: for rows of one class, perhaps, as a slice may have."""

    def value(task: Task, outputs: np.ndarray, labels: np.ndarray) -> float:
        try:
            return measure(task, outputs, labels)
        except (ValueError, ZeroDivisionError):  # how scikit-learn and most functions say it
            return math.nan
        except _RAISED as error:  # whatever else a user's function raises
            raise UsageError(
                f"{_FLAG} {name}",
                f"it fails on {len(labels)} rows: {_in_a_line(error)}",
                legal="a function that gives a number, or raises ValueError where its score is not defined",
                todo=f"correct it; {then}",
            ) from None

    return value


def _in_a_line(error: BaseException) -> str:
    ends = "it ends the program, by " if isinstance(error, SystemExit) else ""
    return f"{ends}{type(error).__name__}: {' '.join(str(error).split())[:200]}"
