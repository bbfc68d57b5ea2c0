"""Sum gradients that travel in 16 bits: half the bytes, without a sum that overflows.

fp16: Horovod sums fp16 in fp16: each addition on the ring is rounded, and 40000 twice is infinite. Before a gradient is
sent, all ranks therefore agree on its largest magnitude by a reduction of one number, and with it on a power of two
that puts the largest possible sum at the top of fp16's range. Scaling by a power of two loses nothing.

bf16: Horovod 0.28.1 neither sums nor sends it. Each rank gets one part of every rank's gradient as plain bytes, adds
them in fp32 in the order of the ranks, and gives the sum, rounded once more, to all. That is as many bytes as a ring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from ringtune.train import fixedpoint
from ringtune.train.comm import Comm
from ringtune.train.gradient import OverlappedReducer
from torch import nn

TOP_BIT = 15  # sums stay up to 2**15; the largest fp16 number is nearly 2**16, which leaves room for rounding up
LARGEST_EXPONENT = 126  # the unit and its reciprocal are normal fp32 numbers
SMALL = 1 << 14  # values; a gradient of fewer travels whole rather than in parts, each a message of its own


def units(largest: torch.Tensor, num_terms: int) -> torch.Tensor:
    """Return the units in which ``num_terms`` values up to ``largest`` sum within fp16, each a power of two. **Pure.**

    largest: float32, any shape. The unit is 1 where it is 0, and NaN where it is not finite: so is then the sum.
    """
    finite = torch.where(largest.isfinite(), largest, 0.0)
    exponents = torch.frexp(finite).exponent.to(torch.int64)  # finite < 2**exponent
    exponents += math.ceil(math.log2(num_terms)) - TOP_BIT
    exponents = torch.where(finite == 0.0, 0, exponents).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return torch.where(largest.isfinite(), fixedpoint.power_of_two(exponents), float("nan")).float()


class TwoStageReducer(OverlappedReducer):
    """Sends something of each gradient first and, with what came of it, a second time; both overlap with backward."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], comm: Comm) -> None:
        super().__init__(parameters, comm)
        self.first: dict[str, Any] = {}  # handles of what is not sent the second time yet, the oldest first

    def start(self, name: str, grad: torch.Tensor) -> Any:
        """Send a gradient for the first time and return the handle."""
        raise NotImplementedError

    def go_on(self, name: str, received: torch.Tensor) -> Any:
        """Send a gradient for the second time and return the handle. received: what the first time gave."""
        raise NotImplementedError

    def result(self, name: str, received: torch.Tensor) -> torch.Tensor:
        """Return the sum of a gradient. received: what the second time gave."""
        raise NotImplementedError

    def _send(self, name: str, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.first[name] = self.start(name, parameter.grad)
        self.travelling[name] = None  # until it is sent the second time
        # Ranks may see them arrive at different times: Horovod pairs what they then send by name.
        while self.first and self.comm.is_done(self.first[next(iter(self.first))]):
            self._go_on()

    def _go_on(self) -> None:
        name = next(iter(self.first))
        self.travelling[name] = self.go_on(name, self.comm.wait(self.first.pop(name)))

    def _receive(self, name: str) -> torch.Tensor:
        while self.first:  # all are on their way before one is waited for
            self._go_on()
        return self.result(name, self.comm.wait(self.travelling[name]))

    def _describe(self, how: str) -> str:
        total = 4e-6 * sum(each.numel() for each in self.parameters.values())
        return f"gradients are sent as {how}: 50% of {total:.1f} MB in fp32 a step"


class HalfReducer(TwoStageReducer):
    """Ring-allreduce of each gradient as fp16, when its largest magnitude is agreed (``--compression fp16``).

    Lost are the rounding to 11 bits at each addition, and the last bits of values that are 2**29 / world size times
    smaller than the largest of their tensor.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], comm: Comm) -> None:
        super().__init__(parameters, comm)
        self.units: dict[str, torch.Tensor] = {}

    def start(self, name: str, grad: torch.Tensor) -> Any:
        largest = torch.linalg.vector_norm(grad, ord=math.inf).reshape(1)
        # The maximum over the ranks takes a number over a NaN: only inf is sure to be seen by all.
        largest = torch.where(largest.isnan(), float("inf"), largest)
        return self.comm.maximum_async(largest, f"gradient/{name}/largest")

    def go_on(self, name: str, received: torch.Tensor) -> Any:
        grad = self.parameters[name].grad
        assert grad is not None
        unit = self.units[name] = units(received, self.comm.size)
        return self.comm.add_async((grad * unit.reciprocal()).half().contiguous(), f"gradient/{name}")

    def result(self, name: str, received: torch.Tensor) -> torch.Tensor:
        return received * self.units.pop(name)

    def describe(self) -> str:
        """Return in words how many bytes are sent a step, of those of the gradients in fp32."""
        return self._describe("fp16, scaled by the largest of each")


class BfloatReducer(TwoStageReducer):
    """Exchange of each gradient as bf16, added in fp32 (``--compression bf16``). For tensors of the host.

    Lost are two roundings to 8 bits, of what each rank has and of the sum; small gradients travel as fp32.
    """

    def _send(self, name: str, parameter: torch.Tensor) -> None:
        if parameter.numel() < SMALL:
            OverlappedReducer._send(self, name, parameter)
        else:
            super()._send(name, parameter)

    def start(self, name: str, grad: torch.Tensor) -> Any:
        parts = torch.zeros(self.comm.size, -(-grad.numel() // self.comm.size), dtype=torch.bfloat16)
        parts.view(-1)[: grad.numel()].copy_(grad.reshape(-1))
        return self.comm.deal_async(parts.view(torch.uint8), f"gradient/{name}/parts")

    def go_on(self, name: str, received: torch.Tensor) -> Any:
        total = received.view(torch.bfloat16).float().sum(0).bfloat16()
        return self.comm.gather_async(total.view(torch.uint8), f"gradient/{name}")

    def result(self, name: str, received: torch.Tensor) -> torch.Tensor:
        if received.dtype is torch.float32:
            return received
        parameter = self.parameters[name]
        return received.view(torch.bfloat16)[: parameter.numel()].reshape(parameter.shape)

    def describe(self) -> str:
        """Return in words how many bytes are sent a step, of those of the gradients in fp32."""
        return self._describe("bf16, added in fp32")
