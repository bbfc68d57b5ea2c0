"""Dropout on the CPU whose masks are drawn four at a time.

PyTorch draws a random number of 32 bits for every element, one after the other: 6 ns each, a tenth of a bf16 step. Here
16 bits decide over an element, four to each number of 64 bits that the same generator gives: a rate is rounded to a
multiple of 1/65,536, and what is kept is scaled by the rounded rate, so that the mean stays what it was.
"""

from __future__ import annotations

import torch
from torch import nn

STEPS = 1 << 16


def rounded(rate: float) -> float:
    """Return the rate that is drawn for a rate in [0, 1]. **Pure.**"""
    return round(rate * STEPS) / STEPS


def draw_kept(shape: torch.Size | tuple[int, ...], rate: float) -> torch.Tensor:
    """Return which elements are kept, bool of this shape on the CPU: each with a chance of 1 - `rounded` (rate)."""
    if rounded(rate) == 1:
        return torch.zeros(shape, dtype=torch.bool)
    size = torch.Size(shape).numel()
    bits = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    return (bits[:size] >= round(rate * STEPS) - STEPS // 2).view(shape)  # int16 begins at -32,768


def scale_of(rate: float) -> float:
    """Return what is kept is multiplied by. **Pure.**"""
    return 1 / (1 - rounded(rate)) if rounded(rate) < 1 else 0.0


class Dropout(nn.Dropout):
    """nn.Dropout, drawn so where the tensor is in the host's memory."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or rounded(self.p) == 0 or input.device.type != "cpu":
            return super().forward(input)
        kept = draw_kept(input.shape, self.p)
        return input * torch.where(kept, scale_of(self.p), 0.0).to(input.dtype)


def draw_in_fours(model: nn.Module) -> None:
    """Let the dropout layers of a model draw so."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
