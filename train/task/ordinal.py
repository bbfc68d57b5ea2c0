"""One of several levels in order, such as one to five stars: a yes or no at each level, whether it goes on above it.

The model gives K - 1 numbers for K levels; the k-th says how likely a row that reaches level k is above it. A level's
probability is that of all the steps to it and no more, so that probabilities add up to 1 and are never out of order
(continuation ratios; Shi, Cao and Raschka 2023, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based on
Conditional Probabilities"). The loss of a row is -log of the probability of its level: the paper's, by rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from ringtune.train import scores
from ringtune.train.columns import shown_names
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task.classification import NO_CLASS, best_columns, class_counts, probabilities, softmax
from ringtune.train.task.labels import missing_label, without_decimals
from ringtune.train.task.sequence import LABELS, SequenceTask
from ringtune.train.tokens import Features

TASK = "ordinal"
MOST_LEVELS = 100
_INTEGER = re.compile(r"[-+]?\d{1,9}")


@dataclass(frozen=True)
class Ordinal(SequenceTask):
    """Choose one of several levels."""

    levels: tuple[str, ...]  # the lowest first

    kind: ClassVar[str] = TASK
    score_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "mae", "quadratic_kappa")

    @property
    def width(self) -> int:
        """K: number of levels."""
        return len(self.levels)

    @property
    def classes(self) -> tuple[str, ...]:
        """What each of the model's K - 1 numbers is for."""
        return tuple(f"above {level}" for level in self.levels[:-1])

    def default_score(self, task_name: str | None) -> str:
        """Return the mean distance between levels."""
        return "mae"

    def label_note(self) -> str:
        """Return the number of levels, the lowest and the highest."""
        return f"{self.width} levels, {self.levels[0]} to {self.levels[-1]}"

    def describe(self) -> str:
        """Return the levels."""
        return f"levels {' < '.join(self.levels)}"

    def model_settings(self) -> dict[str, Any]:
        """Return the names of the model's numbers."""
        return {
            "num_labels": self.width - 1,
            "id2label": dict(enumerate(self.classes)),
            "label2id": {name: number for number, name in enumerate(self.classes)},
            "problem_type": None,
        }

    def labels(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the number of each label's level, int64 [N], NO_CLASS where it is none."""
        numbers = {name: number for number, name in enumerate(self.levels)}
        found = (
            NO_CLASS if each is None else numbers.get(each.strip(), numbers.get(level_of(each), NO_CLASS))
            for each in labels
        )
        return np.fromiter(found, dtype=np.int64, count=len(labels))

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return how many features have each level."""
        return class_counts(features, self.levels)

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which labels are levels, bool [N]."""
        return np.asarray(labels != NO_CLASS)

    def wrong_label(self, where: str, label: str | None) -> UsageError:
        """Return the error of a label that is no level."""
        if label is None or not label.strip():
            return missing_label(where, str(self.columns and self.columns.label))
        return UsageError(
            where, f"the label {shown(label)} is no level of the training rows", legal=shown_names(self.levels)
        )

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return -log of the probability of each row's level, fp32 [B]; smoothing spreads over all levels."""
        logs = self.outputs(output, batch)
        return F.cross_entropy(logs, batch[LABELS], reduction="none", label_smoothing=label_smoothing)

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logarithm of the probability of each level, float32 [B, K]."""
        numbers = self.logits(output, batch)
        reached = F.pad(F.logsigmoid(numbers).cumsum(dim=1), (1, 0))  # of level k: the steps to it
        return reached + F.pad(F.logsigmoid(-numbers), (0, 1))  # and no step above it

    def predictions(self, outputs: np.ndarray, top_k: int | None = None) -> dict[str, pa.Array]:
        """Return the level in the middle of the distribution, and the probability of each; or the ``top_k`` likeliest
        levels with theirs."""
        shares = probabilities(outputs)
        if top_k is not None:
            return best_columns(self.levels, outputs, shares, top_k)
        names = np.array(self.levels, dtype=object)
        columns = {"label": pa.array(names[medians(outputs)], pa.string())}
        return columns | {
            f"probability_{name}": pa.array(each) for name, each in zip(self.levels, shares.T, strict=True)
        }

    def answers(self, outputs: np.ndarray) -> Answers:
        """Return the number of the level in the middle, from 0, and the probability of each."""
        return Answers(medians(outputs), softmax(outputs))

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss, accuracy, mean distance in levels, and kappa with quadratic weights, holding one part at a time.

        Kappa is 0 where one level alone is given and true: it is not defined there.
        """
        from sklearn.metrics import cohen_kappa_score

        confusion = np.zeros((self.width, self.width), dtype=np.int64)
        for outputs, labels in parts:
            np.add.at(confusion, (labels, medians(outputs)), 1)
        true, given = confusion.nonzero()
        counts = confusion[true, given]
        num_rows = int(counts.sum())
        if not num_rows:
            return None
        is_one = len({*true.tolist(), *given.tolist()}) == 1
        every = np.arange(self.width)
        kappa = (
            0.0 if is_one else cohen_kappa_score(true, given, labels=every, weights="quadratic", sample_weight=counts)
        )
        values = {
            "loss": scores.total_cross_entropy(parts) / num_rows,
            "accuracy": int(counts[true == given].sum()) / num_rows,
            "mae": int((np.abs(true - given) * counts).sum()) / num_rows,
            "quadratic_kappa": float(kappa),
        }
        details = {"levels": list(self.levels), "rows_are": "true levels", "counts": confusion.tolist()}
        return Scores(num_rows, values, {"confusion_matrix": details}, scores.confusion_table(self.levels, confusion))

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        return {**self._own_json(), "levels": list(self.levels)}


def medians(outputs: np.ndarray) -> np.ndarray:
    """Return the first level up to which there is half of the probability, int64 [N]: its expected distance is the
    smallest. **Pure.** outputs: logarithms of probabilities, [N, K]."""
    return np.asarray((np.cumsum(softmax(outputs), axis=1)[:, :-1] < 0.5).sum(axis=1))


def level_of(label: str) -> str:
    """Return a label as its level is named: a whole number in one spelling, anything else as it is. **Pure.**"""
    text = without_decimals(label)
    return str(int(text)) if _INTEGER.fullmatch(text) else text


def _is_whole(level: str) -> bool:
    return level.lstrip("+-").isdecimal() and len(level) - len(level.lstrip("+-")) < 2


class LevelColumn:
    """The labels of all training rows, added batch by batch: whole numbers, or classes that are declared in order."""

    def __init__(self, name: str, declared: tuple[str, ...]) -> None:
        """name: of the column. declared: the classes that a data set declares, in its order."""
        self.name, self.declared = name, declared
        self.found: set[str] = set()

    def add(self, labels: pa.Array, places: Iterable[str]) -> None:
        """Take note of labels, string [N]. places: where each row is, for messages.

        Raises UsageError for the first row whose label is missing, or no whole number, or too large a one.
        """
        for each in pc.unique(labels).to_pylist():
            place = None
            level = level_of(each or "")
            is_wrong = not self.declared and not _INTEGER.fullmatch(level)
            if not level or is_wrong:
                place = list(places)[labels.to_pylist().index(each)]
            if not level:
                raise missing_label(str(place), self.name)
            if is_wrong:
                what = f"is too large for a level: {len(level.lstrip('+-'))} digits" if _is_whole(level) else ""
                raise UsageError(
                    str(place),
                    f"the label {shown(each)} in column {self.name[:40]!r} {what or 'is no whole number'}",
                    legal="levels as whole numbers, such as 1 to 5, or classes that a data set declares in order",
                    todo="write them so, or leave --task ordinal out",
                )
            self.found.add(level)

    def levels(self, where: str) -> tuple[str, ...]:
        """Return all levels, the lowest first: those declared, or every whole number from the lowest to the highest.

        where: the training rows, for messages. Raises UsageError for fewer than two, or too many.
        """
        if len(self.found) < 2:
            raise UsageError(where, f"all rows have the label {shown(min(self.found))}", legal="two levels or more")
        numbers = [] if self.declared else sorted(map(int, self.found))
        num_levels = len(self.declared) or numbers[-1] - numbers[0] + 1
        if num_levels > MOST_LEVELS:
            raise UsageError(
                where,
                f"its labels have {num_levels} levels",
                legal=f"at most {MOST_LEVELS}",
                todo="--regression true instead of --task ordinal",
            )
        return self.declared or tuple(map(str, range(numbers[0], numbers[-1] + 1)))

    def note(self) -> str:
        """Return which levels no row has, for the user; "" if there are none."""
        missing = [each for each in self.levels("") if each not in self.found]
        return f"no row has the level{'s' * (len(missing) > 1)} {shown_names(missing)}" if missing else ""
