"""Whether a run that is a trial of a search should be pruned: asked after each evaluation.

Rank 0 notes the score in the search's study and asks; all ranks take its answer. Killed between an evaluation and the
answer, a run evaluates again, notes the same score and asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringtune.train import slices, space, trial
from ringtune.train.comm import Comm
from ringtune.train.contract import EXIT_PRUNED, UsageError
from ringtune.train.stop import StopFlag
from ringtune.train.trial import Trial


def report_trial(found: Trial | None, report: Callable[[str], None]) -> Trial | None:
    """Report which trial a run is, and return it. **Rank 0 only.** Raises UsageError if its search is not there."""
    if found is not None:
        from ringtune.train.study import Study

        ended = Study(found.folder).has_ended(found.number)
        more = "; it has ended, and is not noted there any more" if ended else ""
        report(f"trial {found.number} of the search in {found.folder}: {space.shown(found.settings)}{more}")
    return found


class Pruner:
    """What a run's loop asks."""

    def __init__(self, found: Trial, comm: Comm, score: str, *, greater_is_better: bool) -> None:
        """score: name of the one that decides."""
        self.trial, self.comm, self.score, self.greater_is_better = found, comm, score, greater_is_better
        self.pruned = False
        self.value = float("nan")  # of the latest evaluation

    def judge(self, evaluation: int, value: float, *, is_last: bool) -> bool:
        """Note the score of an evaluation and return whether the run should end by it. **Collective.**

        evaluation: counted from 1. is_last: whether the run ends with it anyway.
        """
        self.value = value
        # A flag that nobody sets: the answer must not be cut short by a stop.
        is_bad = self.comm.on_rank_0(lambda: self._is_bad(evaluation, value), StopFlag(), "pruning/judge")
        self.pruned = is_bad and not is_last
        return self.pruned

    def _is_bad(self, evaluation: int, value: float) -> bool:
        from ringtune.train.study import Study

        cost = trial.cost_of(value, greater_is_better=self.greater_is_better)
        return Study(self.trial.folder).is_bad(self.trial.number, evaluation, cost)

    def facts(self, best: float | None) -> dict[str, Any]:
        """Return what ``finished.json`` holds of the trial. best: the score of the model that is left, where that is
        not the latest one."""
        value = self.value if best is None else best
        return trial.outcome_entry(self.score, value, greater_is_better=self.greater_is_better, pruned=self.pruned)


def require_scores(found: Trial | None, *, evaluates: bool) -> None:
    """Raise UsageError for a trial that nothing is evaluated of. **Pure.**"""
    if found is not None and not evaluates:
        raise UsageError(
            "--search",
            "there are no validation rows to compare trials by",
            legal="--validation_file, or a data set with a validation split, and --do_eval true",
        )


def choose(found: Trial | None, comm: Comm, score: str, *, greater_is_better: bool) -> Pruner | None:
    """Return what asks for a trial, None for a run that is none. score: name of the one that decides."""
    return None if found is None else Pruner(found, comm, score, greater_is_better=greater_is_better)


def judge_finished(folder: Path, max_gap: str | None, report: Callable[[str], None]) -> int:
    """Return the exit code of a run that has finished in a folder: as it was then."""
    return EXIT_PRUNED if trial.was_pruned(folder) else slices.judge_finished(folder, max_gap, report)
