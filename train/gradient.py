"""Sum the gradients of all shards over all ranks, overlapped or order-free.

Each shard's loss is already divided by the global count of the step, so gradients are summed, never averaged, and
uneven shards are exact. Horovod's DistributedOptimizer is left out on purpose: it drops the state of the optimizer it
wraps, reduces nothing that is unfrozen later, and races with clipping. Hooks on the parameters and named asynchronous
allreduces do the same work and leave a plain torch optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from ringtune.train import fixedpoint
from ringtune.train.comm import Comm
from torch import nn


class Reducer(Protocol):
    """What the step needs of a reduction: run backward for every local shard, then `finish`."""

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add a shard's gradient; after the last one of this rank its sums may start to travel."""

    def finish(self) -> None:
        """Leave in every ``.grad`` the sum over all shards of all ranks. **Collective.**"""


class OverlappedReducer:
    """Ring-allreduce of each gradient as soon as backward has made it (``fast``)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], comm: Comm) -> None:
        self.parameters, self.comm = dict(parameters), comm
        self.travelling: dict[str, Any] = {}
        self.last = False
        for name, parameter in self.parameters.items():
            parameter.register_post_accumulate_grad_hook(lambda each, name=name: self._made(name, each))

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.last = last
        loss.backward()

    def _made(self, name: str, parameter: torch.Tensor) -> None:
        if self.last and self.comm.size > 1:
            self._send(name, parameter)

    def _send(self, name: str, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        # Horovod refuses tensors that are not contiguous.
        self.travelling[name] = self.comm.add_async(parameter.grad.contiguous(), f"gradient/{name}")

    def _receive(self, name: str) -> torch.Tensor:
        """Return the sum of a gradient that was sent."""
        return self.comm.wait(self.travelling[name])

    def finish(self) -> None:
        if self.comm.size > 1:
            for name, parameter in self.parameters.items():
                if parameter.grad is None:  # this rank had no rows; the others wait for its zeros
                    parameter.grad = torch.zeros_like(parameter)
                if name not in self.travelling:
                    self._send(name, parameter)
            for name in self.travelling:
                summed = self._receive(name)
                grad = self.parameters[name].grad
                if grad is not None and grad.data_ptr() != summed.data_ptr():
                    grad.copy_(summed)
        self.travelling.clear()
        self.last = False


class OrderFreeReducer:
    """Integer sums whose result no ring order, fusion or world size can change by one bit (``exact``).

    Keeps the gradients of this rank's shards until the exponent is agreed: ``shards per rank x gradient size`` bytes.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], comm: Comm, num_shards: int) -> None:
        self.parameters, self.comm, self.num_shards = dict(parameters), comm, num_shards
        self.terms: list[list[torch.Tensor | None]] = []

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()
        self.terms.append([each.grad for each in self.parameters.values()])
        for each in self.parameters.values():
            each.grad = None

    def finish(self) -> None:
        # float64 [number of parameters], on their device: no host reads it, or it would wait for the GPU.
        largest = self._largest()
        if self.comm.size > 1:
            largest = self.comm.maximum(largest, "gradient/largest")
        units = fixedpoint.units(largest, self.num_shards)
        handles = []
        for index, (name, parameter) in enumerate(self.parameters.items()):
            terms = self._gradients(index) or [torch.zeros_like(parameter)]
            total = fixedpoint.quantised_sum(terms, units[index])
            handles.append(self.comm.add_async(total, f"gradient/{name}") if self.comm.size > 1 else total)
        for index, (parameter, handle) in enumerate(zip(self.parameters.values(), handles, strict=True)):
            total = self.comm.wait(handle) if self.comm.size > 1 else handle
            parameter.grad = fixedpoint.dequantise(total, units[index], parameter.dtype)
        self.terms.clear()

    def _gradients(self, index: int) -> list[torch.Tensor]:
        """Return what this rank's shards give a parameter."""
        return [each for terms in self.terms if (each := terms[index]) is not None]

    def _largest(self) -> torch.Tensor:
        """Return each parameter's largest magnitude over this rank's shards, float64; inf stands for all not finite."""
        zero = torch.zeros((), dtype=torch.float64, device=next(iter(self.parameters.values())).device)
        result = []
        for index in range(len(self.parameters)):
            values = [largest_magnitude(gradient).double() for gradient in self._gradients(index)]
            result.append(torch.stack(values).max() if values else zero)
        largest = torch.stack(result)
        # The maximum over the ranks takes a number over a NaN: only inf is sure to be seen by all.
        return torch.where(largest.isnan(), float("inf"), largest)


def largest_magnitude(values: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude, a scalar; NaN if any is. **Pure.** Without a copy of all, as ``abs`` makes."""
    low, high = values.aminmax()
    return torch.maximum(-low, high)
