"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from ringtune.train import decay
from ringtune.train.config import TrainConfig


def num_warmup_steps(total_steps: int, warmup_ratio: float, warmup_steps: int) -> int:
    """Return the length of the warm-up in steps; ``warmup_steps`` wins over the ratio, as in Hugging Face. **Pure.**"""
    return warmup_steps if warmup_steps > 0 else math.ceil(total_steps * warmup_ratio)


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate at 0-based ``step`` of ``total_steps``; after them the last one stays. **Pure.**"""
    warmup = num_warmup_steps(total_steps, config.warmup_ratio, config.warmup_steps)
    at = decay.Place(min(step, total_steps - 1), warmup, total_steps, config.learning_rate)
    return config.learning_rate * decay.factor(config.lr_scheduler_type, at, config.lr_scheduler_kwargs)
