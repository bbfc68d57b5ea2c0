"""One number for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train import scores
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task.labels import is_number
from ringtune.train.task.sequence import LABELS, SequenceTask


@dataclass(frozen=True)
class Regression(SequenceTask):
    """Predict a number, trained by its squared error."""

    kind: ClassVar[str] = "regression"
    score_names: ClassVar[tuple[str, ...]] = ("loss", "mse", "mae", "pearson", "spearmanr")
    width: ClassVar[int] = 1

    def default_score(self, task_name: str | None) -> str:
        """Return Spearman's correlation, GLUE's score of STS-B."""
        return "spearmanr"

    def label_note(self) -> str:
        """Return that labels are numbers."""
        return "a number"

    def describe(self) -> str:
        """Return that it is a number."""
        return "a number"

    def model_settings(self) -> dict[str, Any]:
        """Return one output and the problem type."""
        return {
            "num_labels": 1,
            "id2label": {0: "value"},
            "label2id": {"value": 0},
            "problem_type": "regression",
        }

    def labels(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the number each label is, float32 [N], NaN where it is none or has no place in fp32."""

        def number_of(label: str | None) -> float:
            return float(label) if label is not None and is_number(label) else np.nan

        with np.errstate(over="ignore"):
            numbers = np.fromiter(map(number_of, labels), dtype=np.float64, count=len(labels)).astype(np.float32)
        return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which labels are numbers, bool [N]."""
        return np.asarray(np.isfinite(labels))

    def wrong_label(self, where: str, label: str | None) -> UsageError:
        """Return the error of a label that is no number."""
        column = str(self.columns and self.columns.label)
        return UsageError(where, f"the rating in column {column[:40]!r} is {shown(label)}", legal="a finite number")

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the squared error of each row, fp32 [B]; smoothing does not apply."""
        return F.mse_loss(self.logits(output, batch).squeeze(-1), batch[LABELS].float(), reduction="none")

    def predictions(self, outputs: np.ndarray, top_k: int | None = None) -> dict[str, pa.Array]:
        """Return the number; ``top_k`` does not apply."""
        return {"value": pa.array(outputs[:, 0])}

    def answers(self, outputs: np.ndarray) -> Answers:
        """Return the number, float32 [N]."""
        return Answers(outputs[:, 0])

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return errors and correlations. Holds two numbers a row, because ranks of all rows are compared."""
        outputs, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Scores(len(labels), scores.regression_scores(outputs, labels)) if len(labels) else None

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        return self._own_json()
