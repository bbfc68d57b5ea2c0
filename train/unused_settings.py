"""Settings of a run that are not as by default, and have no effect beside others."""

from __future__ import annotations

from collections.abc import Iterator

from ringtune.train.config import TrainConfig
from ringtune.train.task import Task
from ringtune.train.task.regression import Regression

_ADAM = ("adamw_torch", "adamw_torch_fused", "lamb")
#: The optimizers that have a setting.
_OF_OPTIMIZERS = {"adam_beta1": _ADAM, "adam_beta2": _ADAM, "adam_epsilon": _ADAM, "sgd_momentum": ("sgd",)}


def describe(config: TrainConfig, task: Task) -> list[str]:
    """Return a line for each setting without effect. **Pure.**

    None for one that is as by default: configuration files may have them all.
    """
    return [
        f"--{name} {getattr(config, name)} has no effect: {why}"
        for name, why in _reasons(config, task)
        if getattr(config, name) != getattr(TrainConfig, name)
    ]


def _reasons(config: TrainConfig, task: Task) -> Iterator[tuple[str, str]]:
    for name, optimizers in _OF_OPTIMIZERS.items():
        if config.optim not in optimizers:
            yield name, f"--optim {config.optim} has no such setting"
    if config.compression != "acp":
        yield "compression_rank", f"it is of --compression acp, and not of {config.compression}"
    if config.early_stopping_patience is None:
        yield "early_stopping_threshold", "nothing stops early without --early_stopping_patience"
    if isinstance(task, Regression):
        yield "label_smoothing_factor", "the labels are numbers, and no classes to smooth"
