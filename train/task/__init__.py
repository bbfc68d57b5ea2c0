"""What a row means: one module per kind of task, chosen here and nowhere else.

A task is a frozen value. All that step, loop, evaluation and prediction know of it are the verbs of `verbs.Task`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ringtune.train.columns import Columns
from ringtune.train.contract import FITTED_TASK_FILE, TASK_FILE, UsageError
from ringtune.train.shapes import TEXT
from ringtune.train.task import answer_settings, multilabel, multiple_choice, question_answering, tags
from ringtune.train.task.answers import AnswerColumn
from ringtune.train.task.choice_labels import ChoiceColumn
from ringtune.train.task.classification import Classification
from ringtune.train.task.label_names import LabelNames
from ringtune.train.task.labels import LabelColumn
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import Masking
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.multiple_choice import MultipleChoice
from ringtune.train.task.ordinal import LevelColumn, Ordinal
from ringtune.train.task.question_answering import QuestionAnswering
from ringtune.train.task.regression import Regression
from ringtune.train.task.sequence import SequenceTask
from ringtune.train.task.tags import TagColumn
from ringtune.train.task.token_classification import TokenClassification
from ringtune.train.task.verbs import Task as Task
from ringtune.train.task.windows import Windows

FORMAT = 1  # of task.json; raise it when the file changes its meaning


#: What tells the task: the labels of the training rows, or how texts without any are masked.
Found = LabelColumn | LabelNames | TagColumn | ChoiceColumn | AnswerColumn | LevelColumn | Masking


def decide(columns: Columns, labels: Found, where: str) -> Task:
    """Return the task that the training rows' labels make. Raises UsageError for labels that make none. **Pure.**"""
    if isinstance(labels, AnswerColumn):
        return QuestionAnswering(columns, labels.doc_stride, labels.has_unanswered(where))
    if isinstance(labels, TagColumn):
        return TokenClassification(columns, labels.classes(where), labels.scheme)
    if isinstance(labels, LevelColumn):
        return Ordinal(columns, labels.levels(where))
    if isinstance(labels, ChoiceColumn):
        return MultipleChoice(columns, labels.num_choices, labels.scheme())
    if isinstance(labels, Masking):
        return MaskedLM(columns, labels)
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
    windows = Windows(**content["windows"]) if content.get("windows") else None
    match content["kind"]:
        case "classification":
            return Classification(columns, tuple(map(str, content["classes"])), windows=windows)
        case "regression":
            return Regression(columns, windows=windows)
        case "token_classification":
            return TokenClassification(columns, tuple(map(str, content["classes"])), str(content["scheme"]))
        case "masked_lm":
            return MaskedLM(columns, Masking.from_json(content))
        case "question_answering":
            return question_answering.from_json(columns, content)
        case "multi_label":
            return replace(multilabel.from_json(columns, content), windows=windows)
        case "ordinal":
            return Ordinal(columns, tuple(map(str, content["levels"])), windows=windows)
        case "multiple_choice":
            return multiple_choice.from_json(columns, content)
    raise ValueError(f"no kind of task named {content['kind']!r}")


def of_model(config: Any, where: str) -> Task:
    """Return the task of a model that was trained elsewhere. config: its configuration. Raises UsageError."""
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    kind = _kind_of_model(config)
    if kind is MaskedLM:
        return MaskedLM(None, Masking())
    if kind is MultipleChoice:
        return multiple_choice.of_model()
    if kind is QuestionAnswering:
        return QuestionAnswering(None)
    if kind is TokenClassification:
        if not all(map(tags.is_tag, names)):
            raise UsageError(where, "its classes are no tags", legal="O, and tags such as B-LOC and I-LOC")
        scheme = tags.BIOES if any(name[0] in "ES" for name in names) else tags.IOB2
        return TokenClassification(None, names, scheme)
    if config.problem_type == "multi_label_classification":
        return MultiLabel(None, names)
    if config.num_labels == 1 or config.problem_type == "regression":
        return Regression(None)
    return Classification(None, names)


def settle(task: Task, config: Any) -> Task:
    """Return the task with what the settings of a run, or of a prediction, say of its predictions. **Pure.**

    Raises UsageError for settings that do not apply to it.
    """
    return answer_settings.settle(at_threshold(task, config.threshold), config)


def at_threshold(task: Task, threshold: float | None) -> Task:
    """Return the task with the threshold that the user asks for, the task itself for None. **Pure.**

    Raises UsageError for a task without thresholds.
    """
    if threshold is None:
        return task
    if not isinstance(task, MultiLabel):
        raise UsageError(
            "--threshold",
            f"it is for rows that may have several labels, and the model gives {task.describe()}",
            legal="a multi-label model",
            todo="leave it out",
        )
    return task.at(threshold)


def in_windows(task: Task, stride: int | None, pooling: Literal["mean", "max"]) -> Task:
    """Return the task with long rows read in windows that share ``stride`` tokens, the task itself for None. **Pure.**

    Raises UsageError for a task that reads rows otherwise.
    """
    if stride is None:
        return task
    if not isinstance(task, Classification | Regression | MultiLabel | Ordinal):
        raise UsageError(
            "--window_stride",
            f"it is of texts with labels, and the model gives {task.describe()}",
            todo="leave it out",
        )
    return replace(task, windows=Windows(stride, pooling))


def how_labels_are_given(task: Task, *, fits: bool) -> str:
    """Return how a run decides which of several labels a row is given. fits: whether it evaluates. **Pure.**"""
    if not fits or (isinstance(task, MultiLabel) and task.is_fixed):
        return task.describe()
    return (
        "thresholds: for each label the one with the best F1 on the validation rows, so that scores there are a little "
        "too good (--threshold)"
    )


def _kind_of_model(config: Any) -> type[Task] | None:
    """Return the kind of task that a model's architecture is for, None for one of texts with labels."""
    kinds = {
        "ForMaskedLM": MaskedLM,
        "ForMultipleChoice": MultipleChoice,
        "ForQuestionAnswering": QuestionAnswering,
        "ForTokenClassification": TokenClassification,
    }
    names = [str(each) for each in config.architectures or ()]
    return next((kind for end, kind in kinds.items() if any(name.endswith(end) for name in names)), None)


def auto_class_of(config: Any) -> str:
    """Return the Auto class of transformers for a model that was trained elsewhere. config: its configuration."""
    return (_kind_of_model(config) or SequenceTask).auto_class


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
