"""The settings of masked language modelling: what goes with them, and what does not. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringtune.train.columns import shown_names
from ringtune.train.contract import UsageError

TASK = "masked_lm"
#: Share of the tokens that is masked (Devlin et al. 2019).
PROBABILITY = 0.15
#: Settings that only this kind has.
OWN = ("mlm_probability", "whole_word_mask", "line_by_line")
#: Settings of labels, and of what is made of them.
_OF_LABELS = ("task_name", "regression", "label_separator", "tag_scheme", "threshold", "do_predict")


def check(config: Any) -> None:
    """Raise UsageError for settings that do not go together. config: a `train.config.TrainConfig`. **Pure.**"""
    if config.task != TASK:
        for name in OWN:
            if getattr(config, name):
                raise UsageError(f"--{name}", "no tokens are masked", legal=f"with --task {TASK}", todo="leave it out")
        return
    probability = config.mlm_probability
    if probability is not None and not 0 < probability < 1:
        raise UsageError("--mlm_probability", f"{probability} is out of range", legal="0 < value < 1")
    for name in _OF_LABELS:
        if getattr(config, name) not in (None, False):
            why = "ringtune-predict fills masks in" if name == "do_predict" else "it is for rows with labels"
            raise UsageError(f"--{name}", f"--task {TASK} learns from texts alone", legal=why, todo="leave it out")
    if config.slice_by and not config.line_by_line:
        raise UsageError(
            "--slice_by",
            "texts are joined, so that the tokens of a training row are of several rows",
            legal="with --line_by_line true",
        )


def require_one_text(text: Sequence[str], where: str) -> None:
    """Raise UsageError for a pair of text columns. **Pure.** text: their names. where: the table."""
    if len(text) > 1:
        raise UsageError(
            where,
            f"{shown_names(text)} are a pair of texts",
            legal=f"one text column for --task {TASK}",
            todo=f"--text_column_names {text[0]}",
        )
