"""Order-free sums of floats: agree on an exponent, quantise, add as integers, dequantise.

Floating-point addition is not associative, so the order in which a ring adds its parts shows in the last bit. Integer
addition is. With the largest magnitude of a tensor known to all, every contribution is rounded once to a multiple of
one common unit and summed exactly; the result cannot depend on ring order, tensor fusion or world size (Demmel & Nguyen
2015, "Parallel Reproducible Summation", use the same idea with several bins).

Everything happens where the tensors are: nothing is read by the host, which would wait for a GPU.
"""

from __future__ import annotations

import math

import torch

#: Bits of magnitude of the whole sum. int64 has 63; one is kept free so that rounding up cannot reach the sign.
SUM_BITS = 62
#: Exponents e for which 2**e and 2**-e are normal float64 numbers.
LARGEST_EXPONENT = 1022


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
    return (values.double() * unit.reciprocal()).round_().to(torch.int64)


def dequantise(integers: torch.Tensor, unit: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``integers * unit`` in ``dtype``."""
    return (integers.double() * unit).to(dtype)
