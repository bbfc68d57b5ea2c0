"""What step times say: medians, how sure they are, and whether one way is faster than another. Pure rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

DOUBT = 0.01  # the chance that an interval leaves out the true median; a search makes about ten comparisons
LEAST_STEPS = 8  # fewer have no such interval
WORTH = 0.98  # of the step time: what gains less is not chosen
Times = Mapping[tuple[int, int], float]
"""Seconds of each (launch, step). The same step has the same rows in every way of running it."""


@dataclass(frozen=True)
class Summary:
    """Step times in seconds."""

    median: float
    quarter: float  # a quarter of the steps took less
    three_quarters: float  # a quarter took more
    num_steps: int


def summarise(times: Times) -> Summary:
    """Return median and spread of at least one step time. **Pure.**"""
    values = sorted(times.values())
    quarter, middle, three_quarters = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Summary(middle, quarter, three_quarters, len(values))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return two of the values between which the true median lies, with a chance of doubt of DOUBT at most. **Pure.**

    Without an assumption on the distribution: the number of values below the median is binomial, so the k-th smallest
    and the k-th largest leave it out with a chance of 2 P(B(n, 1/2) < k) (David and Nagaraja, Order Statistics, 7.1).
    Fewer than LEAST_STEPS values say nothing: the interval is without ends.
    """
    ordered, count = sorted(values), len(values)
    k, outside = 0, 0.0
    while k < count and 2 * (outside + math.comb(count, k) / 2**count) <= DOUBT:
        outside += math.comb(count, k) / 2**count
        k += 1
    return (ordered[k - 1], ordered[count - k]) if k else (-math.inf, math.inf)


def compare(times: Times, others: Times) -> tuple[float, float, float]:
    """Return the ratio of the step times to those of another way, and the ends of its interval. **Pure.**

    Step is compared with step, of which both have the same rows: that steps differ among themselves does not blur it.
    Without a step that both have, nothing is known: (1, -inf, inf).
    """
    ratios = [times[key] / others[key] for key in times.keys() & others.keys()]
    return (median(ratios), *median_interval(ratios)) if ratios else (1.0, -math.inf, math.inf)


def is_faster(times: Times, others: Times) -> bool:
    """Return whether the one is faster than the other beyond doubt, and by as much as is worth a change. **Pure.**"""
    ratio, _, high = compare(times, others)
    return ratio <= WORTH and high < 1


def is_alike(times: Times, others: Times) -> bool:
    """Return whether neither is faster than the other beyond doubt. **Pure.**"""
    _, low, high = compare(times, others)
    return low <= 1 <= high
