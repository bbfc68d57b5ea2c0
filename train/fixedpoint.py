"""Order-free sums of floats: agree on an exponent, quantise, add as integers, dequantise.

Floating-point addition is not associative, so the order in which a ring adds its parts shows in the last bit. Integer
addition is. With the largest magnitude of a tensor known to all, every contribution is rounded once to a multiple of
one common unit and summed exactly; the result cannot depend on ring order, tensor fusion or world size (Demmel & Nguyen
2015, "Parallel Reproducible Summation", use the same idea with several bins).
"""

from __future__ import annotations

import math

import torch

#: Bits of magnitude of the whole sum. int64 has 63; one is kept free so that rounding up cannot reach the sign.
SUM_BITS = 62


def unit_exponent(largest: float, num_terms: int) -> int:
    """Return e such that ``num_terms`` values up to ``largest`` sum within int64 in units of 2**e. **Pure.**"""
    if largest == 0.0:
        return 0
    _, exponent = math.frexp(largest)  # largest < 2**exponent
    return exponent + math.ceil(math.log2(max(1, num_terms))) - SUM_BITS


def quantise(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Return ``round(values / 2**exponent)`` as int64, any shape. Scaling by a power of two in float64 is exact."""
    return torch.ldexp(values.double(), torch.tensor(-exponent, device=values.device)).round_().to(torch.int64)


def dequantise(integers: torch.Tensor, exponent: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``integers * 2**exponent`` in ``dtype``."""
    return torch.ldexp(integers.double(), torch.tensor(exponent, device=integers.device)).to(dtype)
