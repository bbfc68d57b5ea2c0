"""The optimizer by its name, and its state as named tensors: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.lamb import Lamb
from ringtune.train.trainable import rates_of, trainable
from torch import nn

RATE = "lr_factor"  # of a group of parameters: what the learning rate is multiplied by


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer that ``--optim`` names; matrices decay, biases and norms do not."""
    groups = parameter_groups(model, config)
    betas, eps = (config.adam_beta1, config.adam_beta2), config.adam_epsilon
    match config.optim:
        case "adafactor":  # as transformers' Trainer sets it: the learning rate is the schedule's
            from transformers.optimization import Adafactor

            return Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
        case "lamb":
            return Lamb(groups, lr=0.0, betas=betas, eps=eps)
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.sgd_momentum)
        case _:  # AdamW (Loshchilov & Hutter 2019) with bias correction
            return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the trained parameters by weight decay and share of the learning rate, in the model's order."""
    parameters = trainable(model)
    rates = rates_of(model, config.layerwise_lr_decay)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, each in parameters.items():
            if (each.ndim >= 2) == decays:
                groups.setdefault((decays, rates[name]), []).append(each)
    return [
        {"params": several, "weight_decay": config.weight_decay if decays else 0.0, RATE: rate}
        for (decays, rate), several in groups.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group its share of a step's learning rate; one without a share gets all of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(RATE, 1.0)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as tensors, named ``<parameter>/<its name>``, such as ``exp_avg`` or ``step``."""
    return {
        f"{name}/{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        for name, parameter in trainable(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], where: str
) -> None:
    """Put saved state back; every rank does so from the same file. Raises UsageError if it is another model's."""
    parameters = trainable(model)
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("/")
        if name not in parameters or not _fits(tensor, parameters[name]):
            raise UsageError(
                where,
                f"its optimizer state {full_name} {list(tensor.shape)} does not fit this model",
                legal="a checkpoint of the same model",
                todo="check --model_name_or_path",
            )
        state = optimizer.state[parameters[name]]
        if tensor.dtype == torch.float64:  # a number of Python's
            state[key] = int(tensor) if key == "step" else float(tensor)
        else:  # the step count stays where fused AdamW keeps it: beside its parameter
            state[key] = tensor.to(parameters[name].device).clone()


def _fits(state: torch.Tensor, parameter: nn.Parameter) -> bool:
    """Return whether a tensor can be of a parameter's state: of its shape, a number, or one for each row or column."""
    shape = tuple(parameter.shape)
    return tuple(state.shape) in (shape, (), shape[:-1], shape[:-2] + shape[-1:])
