"""Deal the rows of one step into shards of near-equal cost, and the shards to ranks.

The cost of a shard is what the hardware computes. Of packed rows that is the sum of what each costs: every row, the
longest first, goes to the shard that costs least so far (Graham 1969, "Bounds on Multiprocessing Timing Anomalies").
Of padded rows it is their number times the length of the longest. Sorted by length, the best shards are runs of
neighbours, so the smallest possible largest cost is found by asking, for a given bound, whether the runs fit into
``num_shards`` of them (the linear partition problem, solved by bisection on the bound).

Only rows *inside* one random global batch change places, so the step's rows and its expected gradient stay what they
were; the world size is not an argument.
"""

from __future__ import annotations

import heapq
import math

import numpy as np


def deal_packed(rows: np.ndarray, costs: np.ndarray, num_shards: int) -> list[np.ndarray]:
    """Return ``num_shards`` arrays of row numbers that together hold each of ``rows`` once. **Pure.**

    rows: int64 [B], the rows of the step. costs: int64 [B], of each of them. With fewer rows than shards the last
    shards are empty; otherwise none is. Within a shard the rows keep their order of cost, the highest first.
    """
    by_cost = np.lexsort((rows, -costs))
    lightest = [(0, shard) for shard in range(num_shards)]  # a heap: what each shard costs so far
    shard_of = np.empty(len(rows), dtype=np.int64)
    for place, cost in enumerate(costs[by_cost].tolist()):
        total, shard = lightest[0]
        shard_of[place] = shard
        heapq.heapreplace(lightest, (total + cost, shard))
    by_shard = np.argsort(shard_of, kind="stable")
    sizes = np.bincount(shard_of, minlength=num_shards)
    return np.split(rows[by_cost][by_shard], np.cumsum(sizes)[:-1])


def deal(rows: np.ndarray, lengths: np.ndarray, num_shards: int) -> list[np.ndarray]:
    """Return ``num_shards`` arrays of row numbers that together hold each of ``rows`` once. **Pure.**

    rows: int64 [B], the rows of the step. lengths: int [B], tokens of each of them. With fewer rows than shards the
    last shards are empty; otherwise none is. Within a shard the rows keep their order of length, longest first.
    """
    by_length = np.lexsort((rows, -lengths))
    rows, lengths = rows[by_length], lengths[by_length]
    low, high = int(lengths.max(initial=1)), int(lengths.max(initial=1)) * max(1, math.ceil(len(rows) / num_shards))
    while low < high:
        bound = (low + high) // 2
        if len(_runs(lengths, bound)) <= num_shards:
            high = bound
        else:
            low = bound + 1
    starts = _spread(_runs(lengths, low), len(rows), num_shards)
    return np.split(rows, starts[1:])


def _runs(lengths: np.ndarray, bound: int) -> list[int]:
    """Return where each run starts if every run takes all it can without costing more than ``bound`` tokens."""
    starts, position = [], 0
    while position < len(lengths):
        starts.append(position)
        position += max(1, bound // max(1, int(lengths[position])))
    return starts


def _spread(starts: list[int], num_rows: int, num_shards: int) -> list[int]:
    """Split the largest runs until there are ``num_shards``, so that no rank idles while another has two rows."""
    starts = list(starts)
    while len(starts) < min(num_shards, num_rows):
        sizes = np.diff([*starts, num_rows])
        largest = int(np.argmax(sizes))
        starts.insert(largest + 1, starts[largest] + int(sizes[largest]) // 2)
    return starts + [num_rows] * (num_shards - len(starts))


def shards_of_rank(num_shards: int, rank: int, world_size: int) -> range:
    """Return a rank's shards: a contiguous block, so that gathering by rank lists them in order. **Pure.**"""
    per_rank = num_shards // world_size
    return range(rank * per_rank, (rank + 1) * per_rank)


def padded_tokens(lengths: np.ndarray) -> int:
    """Return the tokens a shard costs after padding to its longest row."""
    return int(len(lengths) * lengths.max(initial=0))
