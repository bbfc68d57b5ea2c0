"""Which way the score that decides is better: of a user's own function nobody knows it. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ringtune.train.columns import split_names
from ringtune.train.contract import UsageError

LOWER_IS_BETTER = ("loss", "mse", "mae", "hamming_loss", "perplexity")
NAME = "greater_is_better"


def greater_is_better(asked: bool | None, score: str) -> bool:
    """Return whether more of a score is better. asked: ``--greater_is_better``. **Pure.**"""
    return asked if asked is not None else score not in LOWER_IS_BETTER


def deciding_function(metrics: str | None, best: str | None) -> str | None:
    """Return the user's function that decides which model is best, as ``--metrics`` names it; None if none does.
    **Pure.** best: ``--metric_for_best_model``."""
    name = (best or "").removeprefix("eval_")
    functions = (each for each in split_names(metrics) if ":" in each)
    return next((each for each in functions if name and each.rpartition(":")[2] == name), None)


def check(config: Any) -> None:
    """Raise UsageError for a user's function that decides without its direction. config: of training. **Pure.**"""
    found = deciding_function(config.metrics, config.metric_for_best_model)
    if found is not None and config.greater_is_better is None:
        raise UsageError(
            f"--metric_for_best_model {config.metric_for_best_model}",
            f"nobody knows whether more of {found} is better",
            legal=f"--{NAME} true for a score, or --{NAME} false for a cost",
        )


def as_now_asked(saved: Mapping[str, Any], config: Any) -> Mapping[str, Any]:
    """Return saved settings with the direction that was meant before it had to be said, if it is what is asked for now.
    **Pure.** config: what is asked for now."""
    found = deciding_function(config.metrics, config.metric_for_best_model)
    before = greater_is_better(None, found.rpartition(":")[2]) if found is not None else None
    is_same = saved.get(NAME) is None and before is not None and config.greater_is_better == before
    return {**saved, NAME: before} if is_same else saved


def refuse_other_function(saved: Mapping[str, Any], config: Any) -> None:
    """Raise UsageError if another function decides than in the run that goes on. **Pure.**

    --metrics may change, but values of two functions of one name would be compared. saved: the run's settings.
    """
    before = deciding_function(saved.get("metrics"), saved.get("metric_for_best_model"))
    now = deciding_function(config.metrics, config.metric_for_best_model)
    if before is not None and now is not None and not _is_same(before, now):
        raise UsageError(
            f"--metrics {config.metrics}",
            f"{now} would decide which model is best; in the run to be resumed {before} does",
            legal="the same function",
            todo=f"name {before}, or start a new run with another --output_dir",
        )


def _is_same(one: str, other: str) -> bool:
    """Return whether two names are of one function. What a relative name began at may be another folder now."""
    (one_file, _, one_name), (other_file, _, other_name) = one.rpartition(":"), other.rpartition(":")
    files = [os.path.normpath(each) for each in (one_file, other_file)]
    if os.path.isabs(files[0]) != os.path.isabs(files[1]):
        files = [os.path.basename(each) for each in files]
    return one_name == other_name and files[0] == files[1]
