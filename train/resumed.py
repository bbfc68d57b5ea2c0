"""What a run that goes on from a checkpoint takes from its state, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ringtune.train.best import Best
from ringtune.train.checkpoint import RunState
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.schedule import learning_rate
from ringtune.train.tokens import is_digest_of


def refuse_other_data(state: RunState, data_digest: str, tokenizer: Any, where: str) -> None:
    """Raise UsageError if rows or tokenizer are not what the run started with."""
    are_same = {
        "data": state.data_digest == data_digest,
        "tokenizer": is_digest_of(state.tokenizer_digest, tokenizer),
    }
    for name, is_same in are_same.items():
        if not is_same:
            raise UsageError(
                where,
                f"the {name} is not what it was when the run started",
                legal=f"the same {name}, byte for byte",
                todo="put it back, or start a new run with another --output_dir",
            )


def without_lost_best(state: RunState, why_lost: str, report: Callable[..., None]) -> RunState:
    """Return the state to go on from, without a best model that is not there any more. why_lost: "" if it is there."""
    if not why_lost:
        return state
    report(f"the best model so far is lost ({why_lost}): the best is chosen from the evaluations to come")
    return dataclasses.replace(state, best=Best())


def schedule_steps(state: RunState | None, config: TrainConfig, total_steps: int, report: Callable[..., None]) -> int:
    """Return the steps that the learning rates are planned for; where they change, report the one before and after.

    state: to go on from, None for a new run. total_steps: of the run as it is asked for now.
    """
    if state is None or state.steps_of_schedule == total_steps:
        return total_steps
    kept = state.steps_of_schedule
    if config.keep_schedule:
        report(f"the learning rates stay those planned for {kept} steps; after them the last one")
        return kept
    before, after = (learning_rate(config, state.step, steps) for steps in (kept, total_steps))
    report(
        f"the schedule has {total_steps} steps instead of {kept}: the learning rate of step {state.step + 1} is "
        f"{after:.3g}, where the run before had {before:.3g} left; --keep_schedule true keeps it"
    )
    return total_steps
