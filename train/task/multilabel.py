"""Several labels for each row, or none: each label is there from a probability of its own on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train.columns import Columns, shown_name, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.label_sets import LabelSets, names_of
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task import label_counts, thresholds
from ringtune.train.task.classification import best_columns
from ringtune.train.task.label_counts import LabelCounts
from ringtune.train.task.label_names import wrong_labels
from ringtune.train.task.sequence import LABELS, SequenceTask
from ringtune.train.tokens import Features

NO_LABELS = -1  # in every place of a row whose labels are none


@dataclass(frozen=True)
class MultiLabel(SequenceTask):
    """Decide for each of several labels whether a row has it."""

    classes: tuple[str, ...]  # the labels, in the order of the model's outputs
    thresholds: tuple[float, ...] | None = None  # probabilities, one for each label; None: not fitted, each is 0.5
    is_fixed: bool = False  # the user chose the thresholds: none are fitted

    kind: ClassVar[str] = "multi_label"
    has_several_labels: ClassVar[bool] = True
    score_names: ClassVar[tuple[str, ...]] = (
        "loss",
        "f1_micro",
        "f1_macro",
        "f1_samples",
        "subset_accuracy",
        "hamming_loss",
    )

    @property
    def width(self) -> int:
        """Number of labels."""
        return len(self.classes)

    @property
    def cuts(self) -> tuple[float, ...]:
        """The threshold of each label."""
        return self.thresholds or (thresholds.DEFAULT,) * self.width

    def default_score(self, task_name: str | None) -> str:
        """Return F1 over all labels of all rows, which run_classification.py reports of such rows, too."""
        return "f1_micro"

    def label_note(self) -> str:
        """Return the number of labels, and that a row need not have one."""
        return f"{self.width} labels, a row has any of them or none"

    def describe(self) -> str:
        """Return the labels with their thresholds."""
        if len(set(self.cuts)) == 1:
            return f"labels {', '.join(self.classes)}, each from a probability of {self.cuts[0]:.4g} on"
        named = (f"{name} {cut:.4g}" for name, cut in zip(self.classes, self.cuts, strict=True))
        return f"labels from these probabilities on: {', '.join(named)}"

    def model_settings(self) -> dict[str, Any]:
        """Return the names of the labels and the problem type."""
        return {
            "num_labels": self.width,
            "id2label": dict(enumerate(self.classes)),
            "label2id": {name: number for number, name in enumerate(self.classes)},
            "problem_type": "multi_label_classification",
        }

    def labels(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return which labels each row has, int8 [N, W], NO_LABELS where it names one that is unknown, or has none.

        labels: as `LabelSets.read` gives them. Where labels have no names of their own (LABEL_0, ...), a number will
        do.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        if all(name == f"LABEL_{number}" for number, name in enumerate(self.classes)):
            numbers |= {str(number): number for number in range(self.width)}
        found = np.zeros((len(labels), self.width), dtype=np.int8)
        for row, label in enumerate(labels):
            names = names_of(label)
            if isinstance(names, list) and all(name in numbers for name in names):
                found[row, [numbers[name] for name in names]] = 1
            else:
                found[row] = NO_LABELS
        return found

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return how many features have each label."""
        labels = features.feature_columns.get(LABELS, np.empty((0, self.width), dtype=np.int8))
        return dict(zip(self.classes, (labels == 1).sum(axis=0).tolist(), strict=True))

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return of which rows the labels are known, bool [N]."""
        return np.asarray(labels[:, 0] != NO_LABELS)

    def wrong_label(self, where: str, label: str | None) -> UsageError:
        """Return the error of a row whose labels are none."""
        names = names_of(label)
        if not isinstance(names, list):
            return wrong_labels(where, self.columns, names)
        unknown = next(name for name in names if name not in self.classes)
        return UsageError(
            where,
            f"the label {shown_name(unknown)} does not occur in the training rows",
            legal=shown_names(self.classes),
        )

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the binary cross entropy of each label of each row, fp32 [B, W].

        label_smoothing: spread over the two answers to each label, as over two classes.
        """
        targets = batch[LABELS].float() * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(self.logits(output, batch), targets, reduction="none")

    def given(self, outputs: np.ndarray) -> np.ndarray:
        """Return which labels rows are given, bool [N, W]. outputs: of the model, [N, W]."""
        return np.asarray(probabilities(outputs).astype(np.float64) >= np.array(self.cuts))

    def predictions(self, outputs: np.ndarray, top_k: int | None = None) -> dict[str, pa.Array]:
        """Return the labels of each row, and the probability of each label, or of the best ``top_k`` with their names.

        The labels of a row stand in the order of the model's outputs.
        """
        shares = probabilities(outputs)
        names = np.array(self.classes, dtype=object)
        given = [names[row].tolist() for row in self.given(outputs)]
        columns = {"labels": pa.array(given, pa.list_(pa.string()))}
        if top_k is not None:
            return columns | best_columns(self.classes, outputs, shares, top_k)
        return columns | {f"probability_{name}": pa.array(share) for name, share in zip(names, shares.T, strict=True)}

    def answers(self, outputs: np.ndarray) -> Answers:
        """Return which labels rows are given, 0 or 1, and the probability of each label."""
        return Answers(self.given(outputs).astype(np.int8), probabilities(outputs).astype(np.float64))

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss, F1 over all labels, over labels and over rows, and how many are right; holds one part."""
        counts = LabelCounts(self.width)
        for outputs, labels in parts:
            counts.add(self.given(outputs), labels == 1)
        if not counts.num_rows:
            return None
        # fsum rounds once, whatever the order.
        total_loss = math.fsum(each for outputs, labels in parts for each in cross_entropies(outputs, labels))
        of_labels = counts.of_labels(self.classes, self.cuts)
        return Scores(counts.num_rows, counts.scores(total_loss), {"labels": of_labels}, label_counts.table(of_labels))

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> MultiLabel:
        """Return the task with the thresholds that are best for rows, unless the user chose them."""
        if self.is_fixed:
            return self
        return replace(self, thresholds=thresholds.fit(probabilities(outputs), labels == 1))

    def at(self, threshold: float) -> MultiLabel:
        """Return the task with one threshold for all labels, the user's."""
        return replace(self, thresholds=(threshold,) * self.width, is_fixed=True)

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        sets = (self.columns and self.columns.sets) or LabelSets()
        return {
            **self._own_json(),
            "label_columns": list(sets.columns),
            "label_separator": sets.separator,
            "classes": list(self.classes),
            "thresholds": list(self.thresholds) if self.thresholds else None,
        }


def from_json(columns: Columns | None, content: Mapping[str, Any]) -> MultiLabel:
    """Return the task that `MultiLabel.to_json` gave; KeyError, TypeError or ValueError for anything else. **Pure.**"""
    sets = LabelSets(tuple(map(str, content["label_columns"])), content["label_separator"])
    classes = tuple(map(str, content["classes"]))
    cuts = content["thresholds"]
    if cuts is not None and len(cuts) != len(classes):
        raise ValueError(f"{len(cuts)} thresholds for {len(classes)} labels")
    found = tuple(map(float, cuts)) if cuts is not None else None
    return MultiLabel(replace(columns, sets=sets) if columns else None, classes, found)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of each output, float32 [N, W], computed in float64. **Pure.**"""
    powers = np.exp(-np.abs(logits.astype(np.float64)))  # at most 1: nothing overflows
    return np.asarray((np.where(logits >= 0, 1.0, powers) / (1 + powers)).astype(np.float32))


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean binary cross entropy of each row's labels, float64 [N]. **Pure.** labels: 0 or 1, [N, W]."""
    scores = logits.astype(np.float64)
    losses = np.maximum(scores, 0) - scores * labels + np.log1p(np.exp(-np.abs(scores)))
    return np.asarray(losses.mean(axis=1))
