"""Masked language modelling: tokens are hidden, and the model learns which they were. Texts have no labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.mask_settings import TASK
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.task import text_pieces
from ringtune.train.task.masking import Masking
from ringtune.train.task.sequence import LABELS
from ringtune.train.task.text_pieces import Drawn
from ringtune.train.tokens import Features

_LARGEST = 700.0  # loss whose exponential is a number


@dataclass(frozen=True)
class MaskedLM:
    """Say which token stood where one is masked. A term of the loss is a masked token.

    Of each, evaluation keeps its loss and whether the best token is the right one, never the whole vocabulary. Masks
    are drawn for each feature by its number: in training from a seed of the step, in evaluation from one that stays.
    """

    columns: Columns | None
    masking: Masking

    kind: ClassVar[str] = TASK
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline: ClassVar[str] = "fill-mask"
    reads_first_token: ClassVar[bool] = False
    cuts_rows: ClassVar[bool] = False
    has_several_labels: ClassVar[bool] = False
    score_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")

    @property
    def width(self) -> int:
        """Numbers for a masked token."""
        return 2

    def default_score(self, task_name: str | None) -> str:
        """Return the loss."""
        return "loss"

    def label_note(self) -> str:
        """Return that there are none."""
        return "texts alone"

    def describe(self) -> str:
        """Return what is predicted."""
        return "masked tokens"

    def model_settings(self) -> dict[str, Any]:
        """Return nothing: the head is that of the vocabulary."""
        return {}

    # Features

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return the features of texts, which `joined_texts` joins unless each is a row: see `text_pieces.encode`."""
        return text_pieces.encode(tokenizer, rows.column("text/0").to_pylist(), max_seq_length, self.masking)

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return nothing: texts have no classes."""
        return {}

    def targets(self, features: Features) -> np.ndarray:
        """Return the feature of each term, int64 [terms]: what it is scored against is in its outputs."""
        return np.repeat(np.arange(features.num_features), features.num_terms)

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return that all terms count, bool [terms]."""
        return np.ones(len(labels), dtype=bool)

    def wrong_label(self, where: str, label: Any) -> UsageError:
        """Return an error that no row causes."""
        return UsageError(where, f"it has a label, {label!r}", legal="texts alone")

    def count_oddities(self, rows: pa.RecordBatch, features: Features) -> dict[str, int]:
        """Return how many rows hold no text, and how many are cut."""
        num_parts = np.bincount(features.row_of, minlength=rows.num_rows)
        return {
            "rows hold no text, as blank lines do: they give no tokens": int((num_parts == 0).sum()),
            "rows are longer than --max_seq_length and are cut into several; nothing is lost": int(
                (num_parts > 1).sum()
            ),
        }

    # Training

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a padded batch; the masks of a feature are drawn from the seed and its number."""

        def draw(number: int) -> Drawn:
            ids, units = text_pieces.units_of(features, number)
            return self.masking.draw(ids, units, seed, number)

        return text_pieces.collate(features, chosen, draw)

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch without what stood at the masks."""
        return {name: each for name, each in batch.items() if name != LABELS}

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the cross entropy of each masked token, fp32 [terms]."""
        logits = logits_of(output, batch)
        return F.cross_entropy(logits, batch[LABELS], reduction="none", label_smoothing=label_smoothing)

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each masked token, and 1 where the best token is right, float32 [terms, 2]."""
        logits, labels = logits_of(output, batch), batch[LABELS]
        is_right = logits.argmax(dim=1) == labels
        return torch.stack([F.cross_entropy(logits, labels, reduction="none"), is_right.float()], dim=1)

    # Predictions and scores

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return nothing: `mask_filling` predicts."""
        return []

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return nothing: `mask_filling` predicts."""
        return {}

    def answers(self, outputs: np.ndarray) -> Answers | None:
        """Return None: scores by name are of one answer for each row."""
        return None

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> MaskedLM:
        """Return the task itself: there is nothing to fit."""
        return self

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return loss, perplexity and accuracy of the masked tokens; ``num_rows`` is of features."""
        losses: list[float] = []
        num_right = num_rows = 0
        for outputs, labels in parts:
            losses += outputs[:, 0].tolist()
            num_right += int(np.count_nonzero(outputs[:, 1]))
            num_rows += len(np.unique(labels))
        if not losses:
            return None
        loss = math.fsum(losses) / len(losses)  # rounded once, however rows are parted
        perplexity = math.exp(loss) if loss < _LARGEST else math.inf
        values = {"loss": loss, "perplexity": perplexity, "accuracy": num_right / len(losses)}
        return Scores(num_rows, values, {"num_masked": len(losses)})

    def to_json(self) -> dict[str, Any]:
        """Return the task for task.json."""
        text = list(self.columns.text) if self.columns else None
        return {"kind": self.kind, "text_columns": text, "label_column": None, **self.masking.to_json()}


def logits_of(output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of each masked token, fp32 [terms, V]. output: of a model that reads them alone."""
    logits: torch.Tensor = output.logits
    return logits[0, : len(batch[LABELS])].float()
