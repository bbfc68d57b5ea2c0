"""From which probability on a row is given a label: fitted to rows whose labels are known, for each label by itself."""

from __future__ import annotations

import numpy as np

DEFAULT = 0.5


def best(probabilities: np.ndarray, is_set: np.ndarray) -> float:
    """Return the threshold with the best F1 of one label; rows with ``probability >= threshold`` get it. **Pure.**

    probabilities: float32 [N]. is_set: bool [N], which rows have the label. Every cut between two different
    probabilities is tried. Of equally good ones it is the one nearest to 0.5, the lower of two as near. The threshold
    is 0.5 if that lies within the cut, and its middle else. It is 0.5 for a label that no row has.
    """
    if not is_set.any() or not np.isfinite(probabilities).all():
        return DEFAULT
    order = np.argsort(-probabilities, kind="stable")
    values = probabilities[order].astype(np.float64)
    num_given = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1  # rows above each cut
    num_right = np.cumsum(is_set[order])[num_given - 1]
    # A correctly rounded quotient: equal fractions are equal, and the order of rows does not show.
    f1 = 2 * num_right / (num_given + np.count_nonzero(is_set))
    lowest_given = values[num_given - 1]
    highest_left = np.append(values, 0.0)[num_given]
    # A threshold lies above what is left out, up to the lowest that is given.
    distance = np.maximum(np.maximum(highest_left - DEFAULT, DEFAULT - lowest_given), 0)
    is_best = f1 == f1.max()
    cut = np.flatnonzero(is_best & (distance == distance[is_best].min()))[-1]
    low, high = float(highest_left[cut]), float(lowest_given[cut])
    return DEFAULT if low < DEFAULT <= high else (low + high) / 2


def fit(probabilities: np.ndarray, is_set: np.ndarray) -> tuple[float, ...]:
    """Return `best` of each label. probabilities: float32 [N, W]. is_set: bool [N, W]. **Pure.**"""
    return tuple(best(*each) for each in zip(probabilities.T, is_set.T, strict=True))
