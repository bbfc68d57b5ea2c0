"""How the learning rate rises and falls: schedules by name, each a pure function of the step.

The formulas are those of transformers' ``optimization.py``, but for one_cycle, which is torch's; a test compares each.
Not here are ``reduce_lr_on_plateau`` and ``greedy``, which follow scores: a step would depend on more than its number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ringtune.train.contract import UsageError, nearest


@dataclass(frozen=True)
class Place:
    """Where in the run a step is."""

    step: int  # from 0
    warmup: int  # steps
    total: int  # steps
    peak: float  # the learning rate that the factors multiply

    @property
    def rise(self) -> float | None:
        """Part of the warm-up that is done, None behind it."""
        return self.step / max(1, self.warmup) if self.step < self.warmup else None

    @property
    def progress(self) -> float:
        """Part of the steps behind the warm-up that is done, in [0, 1]."""
        return min(1.0, (self.step - self.warmup) / max(1, self.total - self.warmup))


def _linear(at: Place) -> float:
    """Devlin et al. 2019."""
    return 1.0 - at.progress


def _cosine(at: Place, *, num_cycles: float = 0.5) -> float:
    """Loshchilov & Hutter 2017, half a period unless set otherwise."""
    return _wave(num_cycles, at.progress)


def _wave(num_cycles: float, progress: float) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (2.0 * num_cycles) * progress)))


def _cosine_with_restarts(at: Place, *, num_cycles: float = 1) -> float:
    return 0.0 if at.progress >= 1.0 else _wave(0.5, (num_cycles * at.progress) % 1.0)


def _polynomial(at: Place, *, lr_end: float = 1e-7, power: float = 1.0) -> float:
    return float((at.peak - lr_end) * (1.0 - at.progress) ** power + lr_end) / at.peak


def _constant(at: Place) -> float:
    return 1.0


def _inverse_sqrt(at: Place, *, timescale: float | None = None) -> float:
    scale = timescale or at.warmup or 10_000
    return 1.0 / math.sqrt((at.step + scale - at.warmup) / scale)


def _cosine_with_min_lr(
    at: Place, *, min_lr: float | None = None, min_lr_rate: float | None = None, num_cycles: float = 0.5
) -> float:
    return _raised(_wave(num_cycles, at.progress), _least(at, min_lr, min_lr_rate))


def _raised(factor: float, least: float) -> float:
    return factor * (1.0 - least) + least


def _least(at: Place, min_lr: float | None, min_lr_rate: float | None) -> float:
    return min_lr / at.peak if min_lr is not None else float(min_lr_rate or 0.0)


def _cosine_warmup_with_min_lr(
    at: Place,
    *,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    num_cycles: float = 0.5,
    warmup_lr_rate: float | None = None,
) -> float:
    """Has a warm-up of its own, which ends one step earlier and need not start at 0."""
    if at.step < at.warmup:
        if warmup_lr_rate is None:
            return (at.step + 1) / at.warmup
        return _raised(at.step / max(1, at.warmup - 1), warmup_lr_rate)
    progress = (at.step - at.warmup + 1) / max(1, at.total - at.warmup)
    return _raised(_wave(num_cycles, progress), _least(at, min_lr, min_lr_rate))


def _one_cycle(
    at: Place, *, pct_start: float | None = None, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> float:
    """Smith & Topin 2018, "Super-Convergence", as torch's OneCycleLR has it; rises over the warm-up by default."""
    first = 1.0 / div_factor
    top = (at.warmup if pct_start is None else pct_start * at.total) - 1
    if at.step <= top:
        return _eased(first, 1.0, at.step / top if top > 0 else 1.0)
    return _eased(1.0, first / final_div_factor, (at.step - top) / (at.total - 1 - top))


def _eased(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1.0)


_SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda done: done,
    "cosine": lambda done: 0.5 * (1.0 - math.cos(math.pi * done)),
    "1-sqrt": lambda done: 1.0 - math.sqrt(1.0 - done),
}


def _warmup_stable_decay(
    at: Place,
    *,
    num_decay_steps: float | None = None,
    num_stable_steps: float | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
) -> float:
    """Three stages; the last ``num_decay_steps`` fall. The warm-up starts at ``min_lr_ratio``."""
    if at.step < at.warmup:
        return _raised(_SHAPES[warmup_type](at.step / max(1, at.warmup)), min_lr_ratio)
    falling = num_decay_steps or 0
    stable = at.total - at.warmup - falling if num_stable_steps is None else num_stable_steps
    since = at.step - at.warmup - stable
    if since < 0:
        return 1.0
    if since >= falling:
        return min_lr_ratio
    done = since / max(1, falling)
    if decay_type == "cosine":
        return _raised(_wave(num_cycles, done), min_lr_ratio)
    return _raised(1.0 - done if decay_type == "linear" else 1.0 - math.sqrt(done), min_lr_ratio)


SCHEDULES: Mapping[str, Callable[..., float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "constant": _constant,
    "constant_with_warmup": _constant,
    "inverse_sqrt": _inverse_sqrt,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
    "one_cycle": _one_cycle,
}
_MOST = 10**9  # of a number in --lr_scheduler_kwargs
_OWN_WARMUP = ("cosine_warmup_with_min_lr", "warmup_stable_decay", "one_cycle")


def factor(name: str, at: Place, settings: Mapping[str, Any] | None = None) -> float:
    """Return what the peak learning rate is multiplied by, at least 0. **Pure.**

    name: one of `SCHEDULES`. settings: ``--lr_scheduler_kwargs``, checked. A warm-up rises linearly from 0;
    ``constant`` has none.
    """
    if at.rise is not None and name != "constant" and name not in _OWN_WARMUP:
        return at.rise
    return SCHEDULES[name](at, **(settings or {}))


def check_settings(name: str, settings: Mapping[str, Any], peak: float) -> None:
    """Raise UsageError for ``--lr_scheduler_kwargs`` that the schedule does not take, or lacks. **Pure.**"""
    where = "--lr_scheduler_kwargs"
    known = inspect.signature(SCHEDULES[name]).parameters
    legal = [each for each in known if each != "at"]
    for key, value in settings.items():
        if key not in legal:
            raise UsageError(
                where, f"{name} takes no {key}", legal=", ".join(legal) or "none", todo=nearest(key, legal)
            )
        if "str" in str(known[key].annotation):
            if value not in _SHAPES:
                raise UsageError(where, f"{key} is {value!r}", legal=", ".join(_SHAPES))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
            raise UsageError(where, f"{key} is {value!r}", legal=f"a number from 0 to {_MOST}")
    for key in ("timescale", "div_factor", "final_div_factor"):
        if settings.get(key) == 0:
            raise UsageError(where, f"{key} is 0", legal="a number above 0")
    if settings.get("pct_start", 0) >= 1:
        raise UsageError(where, f"pct_start is {settings['pct_start']}", legal="a part of all steps, below 1")
    if "min_lr" in legal and ("min_lr" in settings) == ("min_lr_rate" in settings):
        raise UsageError(
            where, f"{name} needs min_lr or min_lr_rate, not both", todo='for example {"min_lr_rate": 0.1}'
        )
    if "num_decay_steps" in legal and "num_decay_steps" not in settings:
        raise UsageError(where, f"{name} needs num_decay_steps", todo='for example {"num_decay_steps": 100}')
    if "lr_end" in legal and settings.get("lr_end", 1e-7) >= peak:
        raise UsageError(where, f"lr_end is not below --learning_rate {peak}", legal="a smaller number")
