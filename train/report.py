"""How good predictions are, where the input says what is true; by training's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ringtune.train.scores import confusion_matrix, cross_entropies, regression_scores, scores_of_counts

CORNER = "true / predicted"
Scored = tuple[np.ndarray, np.ndarray]
"""Logits [N, C] and labels [N] of the rows of a part that have a label."""


@dataclass(frozen=True)
class Scores:
    """Scores of all rows that have a label of the model's."""

    num_rows: int
    scores: dict[str, float]
    classes: tuple[str, ...]
    confusion: list[list[int]]  # [true class][predicted class]; empty for a regression

    def as_json(self) -> dict[str, Any]:
        """Return the scores for a report."""
        matrix = {"classes": list(self.classes), "rows_are": "true classes", "counts": self.confusion}
        return {**self.scores, "num_rows": self.num_rows, **({"confusion_matrix": matrix} if self.classes else {})}


def score(parts: Callable[[], Iterable[Scored]], classes: Sequence[str]) -> Scores | None:
    """Return the scores of all parts, None if no row has a label. **Pure.**

    Of a classification it holds one part at a time; of a regression two numbers a row, because ranks of all are compared.
    """
    if not classes:
        return _score_ratings(list(parts()))
    confusion = sum(
        (confusion_matrix(logits, labels) for logits, labels in parts()), np.zeros((len(classes),) * 2, np.int64)
    )
    num_rows = int(confusion.sum())
    if not num_rows:
        return None
    # fsum rounds once, whatever the order: it is the sum that training takes of all rows at once.
    total_loss = math.fsum(_losses(parts()))
    return Scores(num_rows, scores_of_counts(confusion, total_loss), tuple(classes), confusion.tolist())


def _losses(parts: Iterable[Scored]) -> Iterator[float]:
    for logits, labels in parts:
        yield from cross_entropies(logits, labels)


def _score_ratings(parts: Sequence[Scored]) -> Scores | None:
    logits, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Scores(len(labels), regression_scores(logits, labels), (), []) if len(labels) else None


def confusion_table(scores: Scores) -> str:
    """Return the confusion matrix as lines to read: a line for each true class, a column for each predicted one. **Pure.**"""
    width = max(len(name) for name in (*scores.classes, CORNER))
    cell = max(8, *(len(name) + 2 for name in scores.classes))
    lines = [f"{CORNER:{width}}" + "".join(f"{name:>{cell}}" for name in scores.classes)]
    for name, counts in zip(scores.classes, scores.confusion, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:>{cell}}" for count in counts))
    return "\n".join(lines)
