"""Sum gradients as factors of low rank: ACP-SGD (Zhang et al. 2023, "Evaluation and Optimization of Gradient
Compression for Distributed Deep Learning", ICDCS), which halves the work of PowerSGD (Vogels et al. 2019).

What a rank has to send of a matrix is M = its gradient + its error. With Q from the step before, made orthonormal, it
sends P = M Q in one step, and in the next one, with P of that step made orthonormal, it sends Q = Mᵀ P. The sum over
the ranks of what is sent gives P Qᵀ, the gradient that all ranks take. What a rank's own product does not have of M is
its error, which is added to its next gradient: nothing is lost, it comes late.

All of this is linear in M but for the basis, which is the same on all ranks: N ranks compute, up to rounding, what one
rank computes with the sum of their gradients and errors. So also a lone rank compresses, and only the sum of the errors
matters when a run goes on at another world size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ringtune.train.comm import Comm
from ringtune.train.gradient import OverlappedReducer
from ringtune.train.order import derive_seed
from torch import nn

FLOAT_BYTES = 4


@dataclass
class _Matrix:
    """What is kept of a matrix [n, m] from step to step, and in between."""

    error: torch.Tensor  # [n, m], this rank's own
    factor: torch.Tensor  # as summed last: P [n, rank] or Q [m, rank], the same on all ranks
    basis: torch.Tensor | None = None  # orthonormal, of the factor before
    handle: Any = None  # of the factor that travels


class LowRankReducer:
    """Allreduce of one factor of each matrix, as soon as backward has made its gradient (``--compression acp``).

    Whatever would not be smaller as a factor is sent whole. A rank keeps its errors, of the size of the matrices.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], comm: Comm, *, rank: int, seed: int) -> None:
        self.parameters, self.comm, self.rank = dict(parameters), comm, rank
        self.num_sums = 0  # steps done
        self.last = False
        chosen = {name: each for name, each in self.parameters.items() if _is_smaller(each, rank)}
        self.matrices = {
            name: _Matrix(torch.zeros_like(each, memory_format=torch.contiguous_format), _draw(each, rank, seed, index))
            for index, (name, each) in enumerate(chosen.items())
        }
        self.others = {name: each for name, each in self.parameters.items() if name not in chosen}
        self.whole = OverlappedReducer(self.others, comm)
        for name, parameter in chosen.items():
            parameter.register_post_accumulate_grad_hook(lambda each, name=name: self._made(name, each))

    @property
    def sends_left(self) -> bool:
        """Whether this step sends P, the factor that spans the columns; the next one sends Q."""
        return self.num_sums % 2 == 0

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.last = last
        self.whole.backward(loss, last=last)

    def _made(self, name: str, parameter: torch.Tensor) -> None:
        if self.last:
            self._send(name, parameter)

    def _send(self, name: str, parameter: torch.Tensor) -> None:
        each = self.matrices[name]
        rest = each.error if parameter.grad is None else each.error.add_(parameter.grad)
        each.basis = torch.linalg.qr(each.factor).Q
        if self.sends_left:
            factor = rest @ each.basis
            rest.addmm_(factor, each.basis.T, alpha=-1.0)
        else:
            factor = rest.T @ each.basis
            rest.addmm_(each.basis, factor.T, alpha=-1.0)
        factor = factor.contiguous()
        each.handle = self.comm.add_async(factor, f"factor/{name}") if self.comm.size > 1 else factor

    def finish(self) -> None:
        self.whole.finish()
        for name, each in self.matrices.items():
            if each.handle is None:  # this rank had no rows; its error goes on its way all the same
                self._send(name, self.parameters[name])
        for name, each in self.matrices.items():
            each.factor = self.comm.wait(each.handle) if self.comm.size > 1 else each.handle
            assert each.basis is not None
            left, right = (each.factor, each.basis) if self.sends_left else (each.basis, each.factor)
            self._give(self.parameters[name], left, right)
            each.basis = each.handle = None
        self.num_sums += 1
        self.last = False

    def _give(self, parameter: nn.Parameter, left: torch.Tensor, right: torch.Tensor) -> None:
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        torch.mm(left, right.T, out=parameter.grad)

    def own_state(self) -> dict[str, torch.Tensor]:
        """Return what this rank keeps from step to step: ``<parameter>/error`` and ``<parameter>/factor``."""
        errors = {f"{name}/error": each.error for name, each in self.matrices.items()}
        return errors | {f"{name}/factor": each.factor for name, each in self.matrices.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Go on after ``step`` updates with what `own_state` gave. Raises KeyError or RuntimeError if it is not this
        model's."""
        for name, each in self.matrices.items():
            shape = list(each.error.shape)
            shape = [shape[1 if step % 2 == 0 else 0], self.rank]
            each.error.copy_(tensors[f"{name}/error"])
            each.factor = tensors[f"{name}/factor"].to(each.error.device, copy=True).reshape(shape)
        self.num_sums = step

    def describe(self) -> str:
        """Return in words how many bytes are sent, a step on average, of those of the gradients in fp32."""
        whole = sum(each.numel() for each in self.others.values())
        factors = sum(self.rank * sum(self.parameters[name].shape) / 2 for name in self.matrices)
        total = sum(each.numel() for each in self.parameters.values())
        return (
            f"gradients are sent as factors of rank {self.rank} (ACP-SGD), {len(self.matrices)} of "
            f"{len(self.parameters)} parameters, the others whole: {(whole + factors) / total:.2%} of "
            f"{total * FLOAT_BYTES / 1e6:.1f} MB in fp32 a step"
        )


def _is_smaller(parameter: torch.Tensor, rank: int) -> bool:
    """Return whether both factors together are smaller than the gradient. **Pure.**"""
    return parameter.ndim == 2 and rank * sum(parameter.shape) < parameter.numel()


def _draw(parameter: torch.Tensor, rank: int, seed: int, index: int) -> torch.Tensor:
    """Return the first Q [m, rank], the same on all ranks."""
    generator = torch.Generator().manual_seed(derive_seed("compression", seed, index))
    return torch.randn(parameter.shape[1], rank, generator=generator).to(parameter.device)
