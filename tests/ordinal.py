"""A task that ringtune does not have, by one class and one patched choice: ``ordinal.py train|predict FLAGS``.

Ordinal regression over K levels by K - 1 yes-or-no questions, "is it above level k?" (Niu et al. 2016, "Ordinal
Regression with Multiple Output CNN for Age Estimation"). Step, loop, evaluation and prediction are those of ringtune.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train import cli, task
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.predict import cli as predict_cli
from ringtune.train.scores import Scores
from ringtune.train.task.sequence import LABELS, SequenceTask


@dataclass(frozen=True)
class Ordinal(SequenceTask):
    """Choose one of several levels, the lowest first."""

    levels: tuple[str, ...]

    kind: ClassVar[str] = "in_order"
    score_names: ClassVar[tuple[str, ...]] = ("loss", "mean_distance")

    @property
    def width(self):
        return len(self.levels) - 1

    def default_score(self, task_name):
        return "mean_distance"

    def label_note(self):
        return f"{len(self.levels)} levels"

    def describe(self):
        return f"levels {' < '.join(self.levels)}"

    def model_settings(self):
        return {"num_labels": self.width, "problem_type": "multi_label_classification"}

    def labels(self, labels):
        numbers = {name: number for number, name in enumerate(self.levels)}
        return np.array([numbers.get(label, -1) for label in labels], dtype=np.int64)

    def has_label(self, labels):
        return labels >= 0

    def wrong_label(self, where, label):
        return UsageError(where, f"{label!r} is no level", legal=", ".join(self.levels))

    def losses(self, output, batch, label_smoothing):
        return self._losses(output.logits.float(), batch[LABELS])

    def _losses(self, logits, labels):
        is_above = (labels[:, None] > torch.arange(self.width)).float()
        return F.binary_cross_entropy_with_logits(logits, is_above, reduction="none").sum(1)

    def predictions(self, outputs, top_k=None):
        return {"level": pa.array([self.levels[number] for number in (outputs > 0).sum(1)])}

    def scores(self, parts):
        outputs, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        loss = self._losses(torch.from_numpy(outputs).double(), torch.from_numpy(labels)).mean().item()
        distance = np.abs((outputs > 0).sum(1) - labels).mean().item()
        return Scores(len(labels), {"loss": loss, "mean_distance": distance}) if len(labels) else None

    def to_json(self):
        return {**self._own_json(), "levels": list(self.levels)}


def from_json(content):
    return Ordinal(Columns(tuple(content["text_columns"]), content["label_column"]), tuple(content["levels"]))


if __name__ == "__main__":
    task.decide = lambda columns, labels, where: Ordinal(columns, labels.classes(where))
    task.from_json = from_json
    {"train": cli, "predict": predict_cli}[sys.argv[1]].main(sys.argv[2:])
