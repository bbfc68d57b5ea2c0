"""When to save, evaluate and log: functions of the step alone, so that every rank decides alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ringtune.train.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """What is due after which step. All methods are pure; steps are counted from 1."""

    config: TrainConfig
    total_steps: int
    steps_per_epoch: int
    evaluates: bool  # whether there is anything to evaluate

    def log(self, step: int) -> bool:
        """Return whether to write metrics."""
        first = self.config.logging_first_step and step == 1
        return first or step == self.total_steps or step % self._every(self.config.logging_steps) == 0

    def evaluate(self, step: int) -> bool:
        """Return whether to evaluate."""
        if not self.evaluates:
            return False
        return step == self.total_steps or self._at(step, self.config.eval_strategy, self.config.eval_steps)

    def save(self, step: int) -> bool:
        """Return whether to save; always before an evaluation, so that its result can be made again after a kill."""
        last = step == self.total_steps
        return last or self.evaluate(step) or self._at(step, self.config.save_strategy, self.config.save_steps)

    def num_evaluations(self, step: int) -> int:
        """Return how many evaluations are due up to a step, at least one: that of the step itself."""
        return max(1, sum(map(self.evaluate, range(1, step + 1))))

    def evaluate_again(self, step: int, total_steps_then: int) -> bool:
        """Return whether a run that goes on at ``step`` lost an evaluation of that step with its process.

        A checkpoint is written before the evaluation. total_steps_then: planned when it was written; the last step of
        that plan need not be the last one now.
        """
        return self.evaluate(step) or (self.evaluates and step == total_steps_then)

    def _at(self, step: int, strategy: str, every: float | None) -> bool:
        if strategy == "steps" and every is not None:
            return step % self._every(every) == 0
        return strategy == "epoch" and step % self.steps_per_epoch == 0

    def _every(self, steps: float) -> int:
        """Return a number of steps; below 1 it is a part of all."""
        return math.ceil(self.total_steps * steps) if steps < 1 else int(steps)
