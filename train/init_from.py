"""Start from an earlier run and keep its classes: which there are then, and the head that knows them.

Old classes come first, in their order, and keep their rows of the head; new ones get rows behind them, drawn as those
of a new head. An old class that no new row has stays.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from ringtune.train import earlier, final, head, task, weights
from ringtune.train.checkpoint import MODEL_FILE, SMALL_FILE
from ringtune.train.columns import Columns, shown_names
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.task import Task
from ringtune.train.task.answers import AnswerColumn
from ringtune.train.task.choice_labels import ChoiceColumn
from ringtune.train.task.classification import Classification
from ringtune.train.task.label_names import LabelNames
from ringtune.train.task.labels import LabelColumn, is_number
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import Masking
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.multiple_choice import MultipleChoice
from ringtune.train.task.ordinal import LevelColumn, Ordinal
from ringtune.train.task.question_answering import QuestionAnswering
from ringtune.train.task.regression import Regression
from ringtune.train.task.tags import TagColumn
from ringtune.train.task.token_classification import TokenClassification
from safetensors import safe_open
from torch import nn

#: What labels of another kind than texts with one of them are of.
_KINDS: dict[type, str] = {
    AnswerColumn: QuestionAnswering.kind,
    ChoiceColumn: MultipleChoice.kind,
    LabelNames: MultiLabel.kind,
    LevelColumn: Ordinal.kind,
    Masking: MaskedLM.kind,
    TagColumn: TokenClassification.kind,
}


def require_usable(config: TrainConfig) -> None:
    """Raise UsageError for earlier runs that have not finished, are not as ringtune wrote them, or are adapters."""
    replayed = earlier.split_replay(config.replay)[0] if config.replay else None
    for run, flag in ((config.init_from, earlier.INIT_FROM), (replayed, earlier.REPLAY)):
        if run is None:
            continue
        earlier.read_task(run, f"{flag} {run}")
        final.require_whole(run, flag=flag, read_up_to=SMALL_FILE)  # all of it is read with the model
    if config.init_from and (Path(config.init_from).expanduser() / weights.ADAPTER).is_file():
        raise UsageError(
            f"{earlier.INIT_FROM} {config.init_from}",
            "it is an adapter, whose head does not grow",
            legal="a whole model, such as the folder that --save_merged_model wrote",
            todo=f"--model_name_or_path {config.init_from} goes on with the same classes",
        )


def start_task(config: TrainConfig) -> Task | None:
    """Return the task of the run to start from, None without one. Raises UsageError."""
    if not config.init_from:
        return None
    earlier.read_task(config.init_from, f"{earlier.INIT_FROM} {config.init_from}")
    found = task.read(Path(config.init_from).expanduser())
    assert found is not None
    return found[0]


def decide(columns: Columns, labels: task.Found, where: str, start: Task | None, run: str | None) -> Task:
    """Return the task of the training rows, which knows what an earlier run knew. **Pure.**

    start: the task of the earlier run; None: there is none. run: its name. where: the training rows, for messages.
    Raises UsageError for labels of another kind than the earlier run's.
    """
    if start is None:
        return task.decide(columns, labels, where)
    kind = _kind_of(labels, start)
    if kind != start.kind:
        raise UsageError(
            f"{earlier.INIT_FROM} {run}",
            f"it was trained for {start.kind}, and the rows of {where} are of {kind}",
            legal="one kind",
            todo=f"--model_name_or_path {run} takes over its encoder and draws a new head",
        )
    if isinstance(start, Regression):
        return replace(start, columns=columns, windows=None)  # set like any other's
    assert isinstance(labels, LabelColumn | LabelNames | TagColumn)  # `earlier.KINDS` has no others
    names = labels.classes(where) if isinstance(labels, TagColumn) else labels.classes(where, fewest=1)
    classes = _classes_of(start) + new_classes(start, names)
    if isinstance(start, MultiLabel):
        return MultiLabel(columns, classes)  # thresholds are fitted again
    if isinstance(labels, TagColumn):
        return TokenClassification(columns, classes, labels.scheme)
    return Classification(columns, classes)


def _kind_of(labels: task.Found, start: Task) -> str:
    if not isinstance(labels, LabelColumn):
        return _KINDS[type(labels)]
    # Whole numbers are classes unless one goes on with a regression.
    are_numbers = labels.regression is None and bool(labels.first_row) and all(map(is_number, labels.first_row))
    is_rating = labels.are_ratings() or (isinstance(start, Regression) and are_numbers)
    return Regression.kind if is_rating else Classification.kind


def _classes_of(found: Task) -> tuple[str, ...]:
    return tuple(getattr(found, "classes", ()))


def new_classes(start: Task, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which names are no classes of the earlier run's task, in their order. **Pure.**

    A name is known in any spelling that the task reads, such as 1.0 for 1.
    """
    if isinstance(start, Classification):
        return tuple(
            name for name, is_old in zip(names, start.has_label(start.labels(names)), strict=True) if not is_old
        )
    return tuple(name for name in names if name not in _classes_of(start))


def describe(start: Task, found: Task, run: str) -> str:
    """Return what becomes of the earlier run's head, in one line. **Pure.**"""
    old, new = len(_classes_of(start)), _classes_of(found)[len(_classes_of(start)) :]
    if not old:
        return f"head: that of {run} is kept"
    added = f"{len(new)} new: {shown_names(new)}" if new else "none new"
    return f"head: {old} classes of {run} kept, {added}"


def grow_head(model: nn.Module, found: Task, config: TrainConfig) -> None:
    """Give a head that has new classes the earlier run's rows.

    model: as loaded: its head, of another shape than the earlier run's, is drawn from the seed, all else is that run's.
    """
    name, output = head.output_layer(model, found.width)
    if output is None:
        return
    with safe_open(Path(str(config.init_from)).expanduser() / MODEL_FILE, framework="pt") as file:
        names = set(file.keys())
        old = {key: file.get_tensor(f"{name}.{key}") for key in ("weight", "bias") if f"{name}.{key}" in names}
    if not old or len(old["weight"]) == found.width:
        return
    with torch.no_grad():
        output.weight[: len(old["weight"])] = old["weight"]
        if output.bias is not None and "bias" in old:
            output.bias[: len(old["bias"])] = old["bias"]
