"""Scores of predictions against labels, by scikit-learn and scipy, from all rows at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ringtune.train.contract import UsageError

Scored = tuple[np.ndarray, np.ndarray]
"""Outputs of the model [N, W] and labels [N] of some rows, each with a label."""


@dataclass(frozen=True)
class Answers:
    """What a model answers to N rows, as scores by name take it."""

    predictions: np.ndarray  # [N]: class numbers, or numbers; [N, C]: 0 or 1, where a row may have several labels
    probabilities: np.ndarray | None = None  # float64 [N, C], of each class


#: The score by which each GLUE task is ranked (Wang et al. 2019); the rest are ranked by accuracy or Spearman.
GLUE_MAIN_SCORE = {"cola": "matthews_correlation", "stsb": "spearmanr", "mrpc": "f1", "qqp": "f1"}
_CORNER = "true / predicted"


@dataclass(frozen=True)
class Scores:
    """The scores of all rows that have a label."""

    num_rows: int
    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)  # more for a report, as JSON
    text: str = ""  # more for a person, as lines

    def as_json(self) -> dict[str, Any]:
        """Return the scores for a report."""
        values = {name: None if value != value else value for name, value in self.values.items()}  # JSON has no NaN
        return {**values, "num_rows": self.num_rows, **self.details}


def total_cross_entropy(parts: Iterable[Scored]) -> float:
    """Return the sum of the cross entropies of all rows; it does not depend on how rows are parted. **Pure.**"""
    # fsum rounds once, whatever the order.
    return math.fsum(each for logits, labels in parts for each in cross_entropies(logits, labels))


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross entropy of each row, float64 [N], which does not depend on how rows were batched. **Pure.**"""
    scores = logits.astype(np.float64)
    top = scores.max(axis=1, keepdims=True)
    log_normaliser = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
    return log_normaliser - scores[np.arange(len(labels)), labels]


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many rows of each class (row) were taken for each class (column), int64 [C, C]. **Pure.**"""
    counts = np.zeros((logits.shape[1], logits.shape[1]), dtype=np.int64)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    return counts


def scores_of_counts(confusion: np.ndarray, total_loss: float) -> dict[str, float]:
    """Return loss, accuracy, f1 and matthews_correlation from counts of rows and the sum of their losses. **Pure.**

    F1 is of class 1 where there are two classes, as in GLUE, and the mean over classes where there are more.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    labels, guesses = confusion.nonzero()
    counts = confusion[labels, guesses]  # each pair of label and guess once, weighted: the scores are those of all rows
    average = "binary" if len(confusion) == 2 else "macro"
    return {
        "loss": total_loss / int(counts.sum()),
        "accuracy": float(accuracy_score(labels, guesses, sample_weight=counts)),
        "f1": float(f1_score(labels, guesses, sample_weight=counts, average=average, zero_division=0)),
        "matthews_correlation": float(matthews_corrcoef(labels, guesses, sample_weight=counts)),
    }


def regression_scores(values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return loss (= mse), mae, pearson and spearmanr. **Pure.** values: float [N, 1]; labels: float [N].

    A correlation with a constant is not defined and is given as 0.
    """
    from scipy.stats import pearsonr, spearmanr

    guesses, targets = values[:, 0].astype(np.float64), labels.astype(np.float64)
    error = guesses - targets
    mse = math.fsum(error**2) / len(error)
    constant = len(error) < 2 or np.ptp(guesses) == 0 or np.ptp(targets) == 0
    return {
        "loss": mse,
        "mse": mse,
        "mae": math.fsum(np.abs(error)) / len(error),
        "pearson": 0.0 if constant else float(pearsonr(guesses, targets).statistic),
        "spearmanr": 0.0 if constant else float(spearmanr(guesses, targets).statistic),
    }


def confusion_table(classes: Sequence[str], confusion: np.ndarray) -> str:
    """Return a confusion matrix as lines: one for each true class, a column for each predicted one. **Pure.**"""
    width = max(len(name) for name in (*classes, _CORNER))
    cell = max(8, *(len(name) + 2 for name in classes))
    lines = [f"{_CORNER:{width}}" + "".join(f"{name:>{cell}}" for name in classes)]
    for name, counts in zip(classes, confusion.tolist(), strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:>{cell}}" for count in counts))
    return "\n".join(lines)


def deciding_score(task: Any, task_name: str | None, asked: str | None, named: Iterable[str] = ()) -> str:
    """Return the name of the score that decides which model is best. Raises UsageError for an unknown one. **Pure.**

    task: a `ringtune.train.task.Task`. asked: ``--metric_for_best_model``. named: scores of ``--metrics``.
    """
    name = (asked or task.default_score(task_name)).removeprefix("eval_")
    legal = (*task.score_names, *named)
    if name not in legal:
        takes_more = task.answers(np.zeros((1, task.width), dtype=np.float32)) is not None  # see measures.choose
        raise UsageError(
            "--metric_for_best_model",
            f"{name} is no score of {task.kind}",
            legal=", ".join(legal),
            todo="--metrics takes more" if takes_more else "",
        )
    return name
