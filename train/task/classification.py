"""One class for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train import scores
from ringtune.train.columns import shown_names
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task.labels import TRUTH, missing_label, several_todo, without_decimals
from ringtune.train.task.sequence import LABELS, SequenceTask
from ringtune.train.tokens import Features

NO_CLASS = -1


@dataclass(frozen=True)
class Classification(SequenceTask):
    """Choose one of several classes."""

    classes: tuple[str, ...]  # in the order of the model's outputs

    kind: ClassVar[str] = "classification"
    score_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "f1", "matthews_correlation")

    @property
    def width(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def default_score(self, task_name: str | None) -> str:
        """Return GLUE's score of a GLUE task, accuracy for any other."""
        return scores.GLUE_MAIN_SCORE.get(task_name or "", "accuracy")

    def label_note(self) -> str:
        """Return the number of classes."""
        return f"{self.width} classes"

    def describe(self) -> str:
        """Return the names of the classes."""
        return f"classes {', '.join(self.classes)}"

    def model_settings(self) -> dict[str, Any]:
        """Return the class names and the problem type."""
        return {
            "num_labels": self.width,
            "id2label": dict(enumerate(self.classes)),
            "label2id": {name: number for number, name in enumerate(self.classes)},
            "problem_type": "single_label_classification",
        }

    def labels(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the class each label names, int64 [N], NO_CLASS where it names none.

        A label is a class's name; a truth value is known in any spelling, a whole number also as a decimal. Where
        classes have no names of their own (LABEL_0, ...), a label is a class's number.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        if all(name == f"LABEL_{number}" for number, name in enumerate(self.classes)):
            numbers |= {str(number): number for number in range(self.width)}

        def number_of(label: str | None) -> int:
            if label is None:
                return NO_CLASS
            name = label.strip()
            spellings = (label, name, name.capitalize() if name.lower() in TRUTH else name, without_decimals(label))
            return next((numbers[each] for each in spellings if each in numbers), NO_CLASS)

        return np.fromiter(map(number_of, labels), dtype=np.int64, count=len(labels))

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return how many features have each class."""
        return class_counts(features, self.classes)

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which labels name a class, bool [N]."""
        return np.asarray(labels != NO_CLASS)

    def wrong_label(self, where: str, label: str | None) -> UsageError:
        """Return the error of a label that names no class."""
        if label is None or not label.strip():
            return missing_label(where, str(self.columns and self.columns.label))
        return UsageError(
            where,
            f"the label {shown(label)} does not occur in the training rows",
            legal=shown_names(self.classes),
            todo=several_todo(label, self.classes),
        )

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the cross entropy of each row, fp32 [B]."""
        return F.cross_entropy(
            self.logits(output, batch), batch[LABELS], reduction="none", label_smoothing=label_smoothing
        )

    def predictions(self, outputs: np.ndarray, top_k: int | None = None) -> dict[str, pa.Array]:
        """Return the best class and the probability of each, or the best ``top_k`` classes with theirs."""
        shares = probabilities(outputs)
        if top_k is not None:
            return best_columns(self.classes, outputs, shares, top_k)
        best = {"label": best_columns(self.classes, outputs, shares, 1)["label"]}
        return best | {f"probability_{name}": pa.array(each) for name, each in zip(self.classes, shares.T, strict=True)}

    def answers(self, outputs: np.ndarray) -> Answers:
        """Return the number of the best class, and the probability of each."""
        return Answers(outputs.argmax(axis=1), softmax(outputs))

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss, accuracy, F1 and Matthews correlation, holding one part at a time."""
        confusion = np.zeros((self.width, self.width), dtype=np.int64)
        for outputs, labels in parts:
            confusion += scores.confusion_matrix(outputs, labels)
        if not confusion.any():
            return None
        total_loss = scores.total_cross_entropy(parts)
        values = scores.scores_of_counts(confusion, total_loss)
        details = {"classes": list(self.classes), "rows_are": "true classes", "counts": confusion.tolist()}
        table = scores.confusion_table(self.classes, confusion)
        return Scores(int(confusion.sum()), values, {"confusion_matrix": details}, table)

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        return {**self._own_json(), "classes": list(self.classes)}


def class_counts(features: Features, names: Sequence[str]) -> dict[str, int]:
    """Return how many features have each class, by its name. **Pure.** names: in the order of their numbers."""
    labels = features.feature_columns.get(LABELS, np.empty(0, dtype=np.int64))
    counts = np.bincount(labels[labels != NO_CLASS], minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def best_columns(classes: Sequence[str], outputs: np.ndarray, shares: np.ndarray, top_k: int) -> dict[str, pa.Array]:
    """Return the ``top_k`` best classes of each row and their probabilities. **Pure.** outputs, shares: [N, C]."""
    best_first = np.argsort(-outputs, axis=1, kind="stable")
    names = np.array(classes, dtype=object)
    columns: dict[str, pa.Array] = {}
    for place in range(min(top_k, len(classes))):
        numbers = best_first[:, place]
        suffix = f"_{place + 1}" if place else ""
        columns[f"label{suffix}"] = pa.array(names[numbers], pa.string())
        columns[f"probability{suffix}"] = pa.array(shares[np.arange(len(shares)), numbers])
    return columns


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row, float32 [N, C], summed in float64. **Pure.**"""
    return softmax(logits).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row, float64 [N, C]. **Pure.**"""
    exponents = logits.astype(np.float64)
    powers = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
