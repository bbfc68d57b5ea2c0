"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from ringtune.train.config import TrainConfig


def num_warmup_steps(total_steps: int, warmup_ratio: float, warmup_steps: int) -> int:
    """Return the length of the warm-up in steps; ``warmup_steps`` wins over the ratio, as in Hugging Face. **Pure.**"""
    return warmup_steps if warmup_steps > 0 else math.ceil(total_steps * warmup_ratio)


def learning_rate_factor(schedule: str, step: int, warmup_steps: int, total_steps: int) -> float:
    """Return what the peak learning rate is multiplied by at 0-based ``step``, in [0, 1]. **Pure.**

    Linear rise over the warm-up, then ``linear`` decay to 0 (Devlin et al. 2019), ``cosine`` (half a period,
    Loshchilov & Hutter 2017) or ``constant``.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    match schedule:
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            return 1.0
    raise ValueError(f"no learning rate schedule named {schedule!r}")


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate at 0-based ``step`` of ``total_steps``. **Pure.**"""
    warmup = num_warmup_steps(total_steps, config.warmup_ratio, config.warmup_steps)
    return config.learning_rate * learning_rate_factor(config.lr_scheduler_type, step, warmup, total_steps)
