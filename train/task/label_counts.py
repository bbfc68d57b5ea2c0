"""How often each label was given and right, and the scores that follow from that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_NAME = "label"


@dataclass
class LabelCounts:
    """Counts of rows whose true labels are known, added part by part; how they are parted does not show."""

    width: int
    num_rows: int = 0
    num_same: int = 0  # rows whose labels are all right
    rows: Counter[tuple[int, int]] = field(default_factory=Counter)  # by labels right, and labels given + true

    def __post_init__(self) -> None:
        self.given, self.true, self.right = np.zeros((3, self.width), dtype=np.int64)

    def add(self, given: np.ndarray, true: np.ndarray) -> None:
        """Add rows. given, true: bool [N, W]."""
        right = given & true
        self.num_rows += len(given)
        self.num_same += int((given == true).all(axis=1).sum())
        for total, each in ((self.given, given), (self.true, true), (self.right, right)):
            total += each.sum(axis=0)
        self.rows.update(zip(right.sum(axis=1).tolist(), (given.sum(axis=1) + true.sum(axis=1)).tolist(), strict=True))

    def scores(self, total_loss: float) -> dict[str, float]:
        """Return the scores, as scikit-learn defines them. **Pure.** total_loss: of all rows.

        A label that is neither given nor true counts as 0 in the mean over labels, a row without any as 1 in the mean
        over rows: nothing was to be found, and nothing was.
        """
        per_label = [_f1(right, both) for right, both in zip(self.right, self.given + self.true, strict=True)]
        per_row = (_f1(right, both, empty=1.0) * count for (right, both), count in self.rows.items())
        wrong = int((self.given + self.true - 2 * self.right).sum())
        return {
            "loss": total_loss / self.num_rows,
            "f1_micro": _f1(self.right.sum(), (self.given + self.true).sum()),
            "f1_macro": math.fsum(per_label) / self.width,
            "f1_samples": math.fsum(per_row) / self.num_rows,
            "subset_accuracy": self.num_same / self.num_rows,
            "hamming_loss": wrong / (self.num_rows * self.width),
        }

    def of_labels(self, names: Sequence[str], thresholds: Sequence[float]) -> list[dict[str, Any]]:
        """Return threshold, precision, recall, F1 and number of rows of each label. **Pure.**"""
        return [
            {
                _NAME: name,
                "threshold": threshold,
                "precision": right / given if given else 0.0,
                "recall": right / true if true else 0.0,
                "f1": _f1(right, given + true),
                "support": true,
            }
            for name, threshold, given, true, right in zip(
                names, thresholds, self.given.tolist(), self.true.tolist(), self.right.tolist(), strict=True
            )
        ]


def _f1(right: int, given_and_true: int, empty: float = 0.0) -> float:
    return float(2 * right / given_and_true) if given_and_true else empty


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return what `LabelCounts.of_labels` gives, as lines. **Pure.**"""
    rows = list(rows)
    width = max(len(_NAME), *(len(each[_NAME]) for each in rows))
    names = [name for name in rows[0] if name != _NAME]
    lines = [f"{_NAME:{width}}" + "".join(f"{name:>11}" for name in names)]
    for each in rows:
        cells = (f"{each[name]:>11.4f}" if isinstance(each[name], float) else f"{each[name]:>11}" for name in names)
        lines.append(f"{each[_NAME]:{width}}" + "".join(cells))
    return "\n".join(lines)
