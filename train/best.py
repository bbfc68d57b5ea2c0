"""The best evaluation of a run, and how many have been worse since: for the best model, and for stopping early."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Best:
    """The best evaluation so far."""

    score: float | None = None
    step: int = 0
    num_worse: int = 0  # evaluations since the last one that improved by more than the threshold

    def after(self, score: float, step: int, *, greater_is_better: bool, threshold: float) -> Best:
        """Return the best one after an evaluation. **Pure.** step: 1-based.

        The better score is the best, by however little. What improves by no more than the threshold of early stopping
        counts as no improvement, as in transformers' EarlyStoppingCallback.
        """
        improves = is_better(score, self.score, greater_is_better=greater_is_better, threshold=threshold)
        num_worse = 0 if improves else self.num_worse + 1
        if is_better(score, self.score, greater_is_better=greater_is_better):
            return Best(score, step, num_worse)
        return Best(self.score, self.step, num_worse)


def is_better(new: float, old: float | None, *, greater_is_better: bool, threshold: float = 0.0) -> bool:
    """Return whether a score beats the best so far by more than the threshold. **Pure.**"""
    if old is None:
        return new == new  # a NaN is never the best
    return (new - old if greater_is_better else old - new) > threshold
