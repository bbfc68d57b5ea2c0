"""The verbs of a task: all that step, loop, evaluation and prediction know of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.tokens import Features


class Task(Protocol):
    """The verbs of a task.

    Shapes: B features of a batch, N rows, W numbers that the model gives for each term. A term is what has a loss and a
    prediction of its own; most tasks have one for each row. Terms stand in the order of their features.
    """

    kind: ClassVar[str]
    auto_class: ClassVar[str]  # of transformers, for the model
    pipeline: ClassVar[str]  # of transformers, for the model; "": it has none
    reads_first_token: ClassVar[bool]  # whether the model's head reads only the first token of the last layer
    has_several_labels: ClassVar[bool]  # whether a row may have several labels, or none; they are [N, W] then
    score_names: ClassVar[tuple[str, ...]]

    @property
    def cuts_rows(self) -> bool:
        """Whether rows longer than max_seq_length lose what is behind it."""
        ...

    @property
    def columns(self) -> Columns | None:
        """The columns of a row that are read; None for a model whose training is not known."""
        ...

    @property
    def width(self) -> int:
        """W: numbers that the model gives for a term."""
        ...

    def default_score(self, task_name: str | None) -> str:
        """Return the score by which models are compared. task_name: of GLUE."""
        ...

    def label_note(self) -> str:
        """Return what the labels are, for the line that reports the columns: ``2 classes``."""
        ...

    def describe(self) -> str:
        """Return what the model predicts, in a few words: ``classes down, up``."""
        ...

    def model_settings(self) -> dict[str, Any]:
        """Return what the model's configuration must hold."""
        ...

    def encode(self, rows: pa.RecordBatch, tokenizer: Any, max_seq_length: int) -> Features:
        """Return the features of usable rows of the reader; with ``labels`` if the rows have a label column."""
        ...

    def targets(self, features: Features) -> np.ndarray | None:
        """Return the label of each term, [terms, ...]; None for rows without labels. What is no label is marked as one
        that `has_label` knows."""
        ...

    def count_oddities(self, rows: pa.RecordBatch, features: Features) -> dict[str, int]:
        """Return how much of the rows is not read as it stands, by words for the user of what becomes of it."""
        ...

    def count_labels(self, features: Features) -> dict[str, int]:
        """Return how many features have each class by its name; nothing for labels that are no classes."""
        ...

    def has_label(self, labels: np.ndarray) -> np.ndarray:
        """Return which of the labels of `targets` are labels, bool [terms]."""
        ...

    def wrong_label(self, where: str, label: Any) -> UsageError:
        """Return the error for a row whose label is none."""
        ...

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        """Return a batch of features. Anything random is drawn from the seed."""
        ...

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what of a batch the model takes."""
        ...

    def losses(self, output: Any, batch: Mapping[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
        """Return the loss of each term of a batch, fp32; [B, W] of each label of a row, where it may have several.

        output: the model's.
        """
        ...

    def outputs(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what predictions and scores are made of, float32 [terms of the batch, W]. output: the model's."""
        ...

    def output_names(self, rows_are_words: bool, top_k: int | None) -> list[str]:
        """Return the names of the columns of `predict_rows`. rows_are_words: lists of words, not texts."""
        ...

    def predict_rows(
        self, outputs: np.ndarray, features: Features, rows: pa.RecordBatch | None, top_k: int | None = None
    ) -> dict[str, pa.Array]:
        """Return the columns to write, a value for each row; the first one is the prediction itself.

        outputs: [terms, W]. features: of the rows. rows: as `encode` got them; None where they are not at hand.
        """
        ...

    def answers(self, outputs: np.ndarray) -> Answers | None:
        """Return what the outputs [N, W] answer, for scores by name; None: these are not for such tasks."""
        ...

    def scores(self, parts: Iterable[Scored]) -> Scores | None:
        """Return the scores of all rows with a label, None if there is no such row. Parts may be read twice."""
        ...

    def fitted(self, outputs: np.ndarray, labels: np.ndarray) -> Task:
        """Return the task with what it takes from the validation rows. outputs: [N, W]. labels: as `labels` gives."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the task for `from_json`."""
        ...
