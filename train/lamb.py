"""LAMB: AdamW whose update of each tensor is as long as the tensor says, for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Lamb(torch.optim.Optimizer):
    """You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2.

    With bias correction. The ratio of norms is 1 where either is 0, and for tensors that do not decay (biases and
    norms), as in the authors' code.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        num_steps = int(state["step"])
        first = state["exp_avg"].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (second / (1 - beta2**num_steps)).sqrt_().add_(group["eps"])
        update = (first / (1 - beta1**num_steps)).div_(scale)
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
            update.mul_(_trust(parameter, update))
        parameter.sub_(update, alpha=group["lr"])


def _trust(parameter: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """Return the ratio of the norms of a tensor and of its update, 1 where either is 0; on their device."""
    own, other = parameter.norm(), update.norm()
    return torch.where((own > 0) & (other > 0), own / other, torch.ones_like(own))
