"""The trial of a search that a run is: ``trial.json`` in its directory makes it one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import disk
from ringtune.train.contract import FINISHED_FILE, SEARCH_DIR, TRIAL_FILE, UsageError

OUTCOME = "trial"  # in finished.json


@dataclass(frozen=True)
class Trial:
    """The place of a run in its search."""

    folder: Path  # of the search: that of the run directories
    number: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a trial brought that has ended."""

    cost: float  # of the model that it left, as in `cost_of`
    score: str  # name of the score that decides
    value: float | None  # None: not defined
    pruned: bool

    def shown(self) -> str:
        """Return it for people: ``accuracy 0.9130``."""
        value = "not defined" if self.value is None else f"{self.value:.4f}"
        return f"{'pruned at ' if self.pruned else ''}{self.score} {value}"


def cost_of(score: float, *, greater_is_better: bool) -> float:
    """Return a score as what a study makes small: one that should be great counts negative, NaN as the worst.
    **Pure.**"""
    return math.inf if score != score else -score if greater_is_better else score


def outcome_entry(score: str, value: float, *, greater_is_better: bool, pruned: bool) -> dict[str, Any]:
    """Return what ``finished.json`` holds of a trial, for `outcome`. **Pure.**"""
    defined = None if value != value else value
    return {OUTCOME: {"score": score, "value": defined, "greater_is_better": greater_is_better, "pruned": pruned}}


def outcome(run: Path) -> Outcome | None:
    """Return what the trial in a run directory brought, None if it has not ended, or is none. Raises UsageError for
    what no run wrote."""
    path = run / FINISHED_FILE
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        facts = json.loads(content).get(OUTCOME)
        return None if facts is None else _read_outcome(facts)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(
            str(path),
            f"it cannot be read: {type(error).__name__} {error}",
            legal="as the trial wrote it",
            todo="put it back, or remove it: the training command of this trial writes it again",
        ) from None


def _read_outcome(facts: Mapping[str, Any]) -> Outcome:
    """Return the outcome that an entry says; KeyError, TypeError or ValueError for one that says none. **Pure.**"""
    value = facts["value"]
    number = math.nan if value is None else float(value)
    if not isinstance(facts["score"], str):
        raise TypeError(f"its score is {facts['score']!r}")
    cost = cost_of(number, greater_is_better=bool(facts["greater_is_better"]))
    return Outcome(cost, facts["score"], None if value is None else number, bool(facts["pruned"]))


def was_pruned(run: Path) -> bool:
    """Return whether the run in a directory is a trial that was pruned."""
    found = outcome(run)
    return found is not None and found.pruned


def write(run: Path, number: int, settings: Mapping[str, str]) -> None:
    """Make a run directory that of a trial; all of the file is there, or nothing."""
    run.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"number": number, "settings": dict(settings)}, indent=1)
    if not (run / TRIAL_FILE).exists() or (run / TRIAL_FILE).read_text(encoding="utf-8") != content:
        disk.replace_text(run / TRIAL_FILE, content)


def read(run: Path) -> Trial | None:
    """Return the trial that the run in a directory is, None if it is none. Raises UsageError for a damaged file."""
    path = run / TRIAL_FILE
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        settings = {str(name): str(value) for name, value in facts["settings"].items()}
        return Trial(run.absolute().parent, int(facts["number"]), settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            str(path),
            "it cannot be read",
            legal=f"as the search in {run.parent / SEARCH_DIR} wrote it",
            todo="start the search again, which writes it again, or remove it for a run of its own",
        ) from None
