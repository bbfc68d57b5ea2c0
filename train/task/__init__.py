"""What a row means: one module per kind of task, chosen here and nowhere else.

A task is a frozen value. Its verbs, listed in `Task`, are all that step, loop, evaluation and prediction know of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from ringtune.train.columns import Columns
from ringtune.train.contract import FITTED_TASK_FILE, TASK_FILE, UsageError
from ringtune.train.scores import Answers, Scored, Scores
from ringtune.train.shapes import TEXT
from ringtune.train.task import multilabel, tags
from ringtune.train.task.classification import Classification
from ringtune.train.task.label_names import LabelNames
from ringtune.train.task.labels import LabelColumn
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression
from ringtune.train.task.tags import TagColumn
from ringtune.train.task.token_classification import TokenClassification
from ringtune.train.tokens import Features

FORMAT = 1  # of task.json; raise it when the file changes its meaning


class Task(Protocol):
    """The verbs of a task.

    Shapes: B features of a batch, N rows, W numbers that the model gives for each term. A term is what has a loss and a
    prediction of its own; most tasks have one for each row. Terms stand in the order of their features.
    """

    kind: ClassVar[str]
    auto_class: ClassVar[str]  # of transformers, for the model
    pipeline: ClassVar[str]  # of transformers, for the model
    reads_first_token: ClassVar[bool]  # whether the model's head reads only the first token of the last layer
    cuts_rows: ClassVar[bool]  # whether rows longer than max_seq_length lose what is behind it
    has_several_labels: ClassVar[bool]  # whether a row may have several labels, or none; they are [N, W] then
    score_names: ClassVar[tuple[str, ...]]

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


def decide(columns: Columns, labels: LabelColumn | LabelNames | TagColumn, where: str) -> Task:
    """Return the task that the training rows' labels make. Raises UsageError for labels that make none. **Pure.**"""
    if isinstance(labels, TagColumn):
        return TokenClassification(columns, labels.classes(where), labels.scheme)
    if isinstance(labels, LabelNames):
        return MultiLabel(columns, labels.classes(where))
    if labels.are_ratings():
        return Regression(columns)
    return Classification(columns, labels.classes(where))


def from_json(content: Mapping[str, Any]) -> Task:
    """Return the task that `Task.to_json` gave; KeyError, TypeError or ValueError for anything else. **Pure.**"""
    columns = None
    if content["text_columns"] is not None:
        columns = Columns(
            tuple(map(str, content["text_columns"])), content["label_column"], form=content.get("form") or TEXT
        )
    match content["kind"]:
        case "classification":
            return Classification(columns, tuple(map(str, content["classes"])))
        case "regression":
            return Regression(columns)
        case "token_classification":
            return TokenClassification(columns, tuple(map(str, content["classes"])), str(content["scheme"]))
        case "multi_label":
            return multilabel.from_json(columns, content)
    raise ValueError(f"no kind of task named {content['kind']!r}")


def of_model(config: Any, where: str) -> Task:
    """Return the task of a model that was trained elsewhere. config: its configuration. Raises UsageError."""
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if is_token_model(config):
        if not all(map(tags.is_tag, names)):
            raise UsageError(where, "its classes are no tags", legal="O, and tags such as B-LOC and I-LOC")
        scheme = tags.BIOES if any(name[0] in "ES" for name in names) else tags.IOB2
        return TokenClassification(None, names, scheme)
    if config.problem_type == "multi_label_classification":
        return MultiLabel(None, names)
    if config.num_labels == 1 or config.problem_type == "regression":
        return Regression(None)
    return Classification(None, names)


def at_threshold(task: Task, threshold: float | None) -> Task:
    """Return the task with the threshold that the user asks for, the task itself for None. **Pure.**

    Raises UsageError for a task without thresholds.
    """
    if threshold is None:
        return task
    if not isinstance(task, MultiLabel):
        raise UsageError("--threshold", f"it is of labels, and the model gives {task.describe()}", todo="leave it out")
    return task.at(threshold)


def how_labels_are_given(task: Task, *, fits: bool) -> str:
    """Return how a run decides which of several labels a row is given. fits: whether it evaluates. **Pure.**"""
    if not fits or (isinstance(task, MultiLabel) and task.is_fixed):
        return task.describe()
    return (
        "thresholds: for each label the one with the best F1 on the validation rows, so that scores there are a little "
        "too good (--threshold)"
    )


def is_token_model(config: Any) -> bool:
    """Return whether a model gives each token a class. config: its configuration."""
    return any(str(each).endswith("ForTokenClassification") for each in config.architectures or ())


# task.json


def to_bytes(task: Task, max_seq_length: int) -> bytes:
    """Return the content of ``task.json``. **Pure.**"""
    content = {"format": FORMAT, **task.to_json(), "max_seq_length": max_seq_length}
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read(folder: Path) -> tuple[Task, int] | None:
    """Return task and max_seq_length of a model's folder, None if it has no ``task.json``. Raises UsageError.

    What the evaluation of a checkpoint fitted is taken over.
    """
    path = folder / FITTED_TASK_FILE
    if not path.is_file():
        path = folder / TASK_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise UsageError(
                str(path), f"it has format {content['format']!r}", legal=f"format {FORMAT}, of this version of ringtune"
            )
        return from_json(content), int(content["max_seq_length"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            str(path), f"it cannot be read: {type(error).__name__} {error}", legal="the file ringtune wrote"
        ) from None
