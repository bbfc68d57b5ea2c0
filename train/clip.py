"""Clip the gradient by its norm, without a look at rows of the word embeddings that have none."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def clip(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    words: nn.Parameter | None = None,
    filled: torch.Tensor | None = None,
) -> torch.Tensor:
    """Clip the gradients of the parameters by their common norm; return it as it was before, a scalar on their device.

    words: the word embeddings among them, if any, whose norm is that of their rows' norms. filled: int64 [R], the rows
    of ``words`` whose gradient may not be zero; None: all. Which of the two is given changes no bit.
    """
    others = [each for each in parameters if each is not words and each.grad is not None]
    parts = [each.grad for each in others if each.grad is not None]
    if words is None or words.grad is None:
        norm = nn.utils.get_total_norm(parts, foreach=True)
    else:
        rows = words.grad if filled is None else words.grad[filled]
        row_norms = torch.linalg.vector_norm(rows, dim=1)
        if filled is not None:
            row_norms = row_norms.new_zeros(len(words)).index_copy_(0, filled, row_norms)
        norm = nn.utils.get_total_norm([*parts, row_norms], foreach=True)
        rows.mul_(_factor(norm, max_norm))
        if filled is not None:
            words.grad[filled] = rows
    nn.utils.clip_grads_with_norm_(others, max_norm, norm, foreach=True)
    return norm


def _factor(norm: torch.Tensor, max_norm: float) -> torch.Tensor:
    """Return what `torch.nn.utils.clip_grads_with_norm_` multiplies gradients with. **Pure.**"""
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)
