"""Order-free sums of floats: agree on an exponent, quantise, add as integers, dequantise.

Floating-point addition is not associative, so the order in which a ring adds its parts shows in the last bit. Integer
addition is. With the largest magnitude of a tensor known to all, every contribution is rounded once to a multiple of
one common unit and summed exactly; the result cannot depend on ring order, tensor fusion or world size (Demmel & Nguyen
2015, "Parallel Reproducible Summation", use the same idea with several bins).

Everything happens where the tensors are: nothing is read by the host, which would wait for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

#: Bits of magnitude of the whole sum. int64 has 63; one is kept free so that rounding up cannot reach the sign.
SUM_BITS = 62
#: Exponents e for which 2**e and 2**-e are normal float64 numbers.
LARGEST_EXPONENT = 1022
#: Numbers that are scaled at once: 256 KiB of float64.
PART = 1 << 15


def units(largest: torch.Tensor, num_terms: int) -> torch.Tensor:
    """Return the units in which ``num_terms`` values up to ``largest`` sum within int64, each a power of two. **Pure.**

    largest: float64, any shape. The unit is 1 where it is 0, and NaN where it is not finite: then no unit fits, and
    whatever is dequantised with it is NaN.
    """
    finite = torch.where(largest.isfinite(), largest, 0.0)
    exponents = torch.frexp(finite).exponent.to(torch.int64)  # finite < 2**exponent
    exponents += math.ceil(math.log2(max(1, num_terms))) - SUM_BITS
    exponents = torch.where(finite == 0.0, 0, exponents).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return torch.where(largest.isfinite(), power_of_two(exponents), float("nan"))


def power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Return 2**e as float64, exactly on every device: put together from its bits (IEEE 754). **Pure.**"""
    return ((exponents + 1023) << 52).view(torch.float64)


def quantise(values: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return ``round(values / unit)`` as int64, any shape. Scaling by a power of two in float64 is exact."""
    return _scaled(values, unit.reciprocal()).round_().to(torch.int64)


def quantised_sum(terms: Sequence[torch.Tensor], unit: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``quantise(term, unit)`` over terms of one shape, at least one, int64 of that shape."""
    total = torch.empty(terms[0].shape, dtype=torch.int64, device=terms[0].device)
    inverse = unit.reciprocal()
    for part, *values in zip(*map(_parts, (total, *terms)), strict=True):
        part.copy_(_scaled(values[0], inverse).round_())
        for each in values[1:]:
            part += _scaled(each, inverse).round_().to(torch.int64)
    return total


def dequantise(integers: torch.Tensor, unit: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``integers * unit`` in ``dtype``."""
    result = torch.empty(integers.shape, dtype=dtype, device=integers.device)
    for part, values in zip(_parts(result), _parts(integers), strict=True):
        part.copy_(_scaled(values, unit))
    return result


def _scaled(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return a new float64 tensor of values times a power of two."""
    return values.to(torch.float64, copy=True).mul_(factor)


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a tensor's numbers in parts of one dimension, whose float64 copies stay in a processor's cache.

    A GPU takes all of them at once.
    """
    flat = tensor.reshape(-1)
    return (flat,) if tensor.is_cuda else flat.split(PART)
