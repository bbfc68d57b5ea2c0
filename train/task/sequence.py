"""What tasks with one feature for each row, and one vector of numbers for each feature, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from ringtune.train import tokens
from ringtune.train.columns import Columns
from ringtune.train.rows import texts_of
from ringtune.train.task import windows
from ringtune.train.task.windows import WINDOWS, Windows
from ringtune.train.tokens import Features

LABELS = "labels"
WEIGHTS = "weights"  # feature column: what a feature counts in the loss, where not all count the same


@dataclass(frozen=True)
class SequenceTask:
    """A task of transformers' sequence models: a text or a pair of texts in, ``logits`` [B, W] out."""

    columns: Columns | None
    windows: Windows | None = field(default=None, kw_only=True)  # of long rows; None: they are cut

    kind: ClassVar[str]
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline: ClassVar[str] = "text-classification"
    reads_first_token: ClassVar[bool] = True
    has_several_labels: ClassVar[bool] = False

    @property
    def cuts_rows(self) -> bool:
        """Whether rows longer than max_seq_length lose what is behind it."""
        return self.windows is None

    @property
    def width(self) -> int:
        """W: numbers that the model gives for a row."""
        raise NotImplementedError

    def labels(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return labels as numbers, [N]; what is no label is marked as one that `has_label` knows."""
        raise NotImplementedError

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return nothing: labels are no classes."""
        return {}

    def count_oddities(self, rows: pa.RecordBatch, features: Features) -> dict[str, int]:
        """Return how many rows are read in windows."""
        if self.windows is None:
            return {}
        found = {self.windows.describe(): int((windows.num_windows(features) > 1).sum())}
        if windows.CUT in features.feature_columns:
            words = "first texts of pairs leave the second too little room: they are cut"
            found[words] = int(features.feature_columns[windows.CUT].sum())
        return found

    def targets(self, features: Features) -> np.ndarray | None:
        """Return the labels of features, [num_features]; None for rows without labels."""
        return features.feature_columns.get(LABELS)

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return one feature for each row, with ``labels`` if the rows have a label column."""
        encode = tokens.encode if self.windows is None else self.windows.encode
        features = encode(tokenizer, texts_of(rows), max_seq_length)
        if "label" not in rows.schema.names:
            return features
        labels = self.labels(rows.column("label").to_pylist())
        return replace(features, feature_columns={**features.feature_columns, LABELS: labels})

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch; nothing in it is random."""
        return tokens.collate(features, chosen) if self.windows is None else self.windows.collate(features, chosen)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what the model takes: no labels and weights of rows, and nothing of windows."""
        return {name: each for name, each in batch.items() if name not in (LABELS, WEIGHTS, WINDOWS)}

    def logits(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of each row, fp32 [B, W]. output: the model's."""
        found: torch.Tensor = output.logits.float()
        return found if self.windows is None else self.windows.pool(found, batch)

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> Self:
        """Return the task itself: there is nothing to fit."""
        return self

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits, float32 [B, W]."""
        return self.logits(output, batch)

    def predictions(self, outputs: np.ndarray, top_k: int | None = None) -> dict[str, pa.Array]:
        """Return the columns to write for outputs [N, W]; the first one is the prediction itself."""
        raise NotImplementedError

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of `predictions`."""
        return list(self.predictions(np.zeros((0, self.width), dtype=np.float32), top_k))

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return the predictions: a row has one output."""
        return self.predictions(outputs, top_k)

    def _own_json(self) -> dict[str, Any]:
        """Return what every such task has in task.json."""
        own = {
            "kind": self.kind,
            "text_columns": list(self.columns.text) if self.columns else None,
            "label_column": self.columns.label if self.columns else None,
        }
        return own if self.windows is None else {**own, "windows": asdict(self.windows)}
