"""What the settings of a run, or of a prediction, say of answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ringtune.train.contract import UsageError
from ringtune.train.task.question_answering import QuestionAnswering
from ringtune.train.task.verbs import Task

NAMES = ("doc_stride", "n_best_size", "max_answer_length", "null_score_diff_threshold")


def settle(task: Task, config: Any) -> Task:
    """Return the task as the settings have it, the task itself where none of them is set. **Pure.**

    config: of a run, or of a prediction. Raises UsageError for settings that do not apply.
    """
    asked = {name: getattr(config, name) for name in NAMES if getattr(config, name) is not None}
    if not isinstance(task, QuestionAnswering):
        if asked:
            raise UsageError(
                f"--{next(iter(asked))}",
                f"it is of answers, and the model gives {task.describe()}",
                todo="leave it out",
            )
        return task
    if "null_score_diff_threshold" in asked:
        if task.has_unanswered is False:
            raise UsageError(
                "--null_score_diff_threshold",
                "it is of questions without an answer, and each one of the training rows has one",
                todo="leave it out",
            )
        asked["has_unanswered"] = True  # of a model whose training is not known
    found = replace(task, **asked)
    top_k = getattr(config, "top_k", None)
    if top_k is not None and top_k > found.n_best_size:
        raise UsageError(
            "--top_k", f"{top_k} is more than are kept of a row", legal=f"at most --n_best_size {found.n_best_size}"
        )
    return found
