"""Which evaluation is the best, and how many have been worse since."""

from __future__ import annotations

import math

import pytest
from ringtune.train.best import Best


def after(*scores: float, greater: bool = True, threshold: float = 0.0) -> Best:
    best = Best()
    for step, score in enumerate(scores, start=1):
        best = best.after(score, step, greater_is_better=greater, threshold=threshold)
    return best


@pytest.mark.parametrize(
    ("scores", "settings", "expected"),
    [
        ((0.5, 0.7, 0.6), {}, Best(0.7, 2, 1)),
        ((0.5, 0.5), {}, Best(0.5, 1, 1)),  # the first of equal ones
        ((0.9, 0.7, 0.8), {"greater": False}, Best(0.7, 2, 1)),
        ((math.nan, math.nan), {}, Best(None, 0, 2)),
        ((math.nan, 0.2, math.nan), {}, Best(0.2, 2, 1)),
        # Better by less than the threshold: the best one all the same, and no improvement.
        ((0.9, 0.906, 0.909), {"threshold": 0.01}, Best(0.909, 3, 2)),
        ((0.9, 0.906, 0.92), {"threshold": 0.01}, Best(0.92, 3, 0)),
        ((0.9, 0.89, 0.87), {"greater": False, "threshold": 0.015}, Best(0.87, 3, 0)),
    ],
)
def test_the_better_score_is_the_best_and_the_threshold_only_counts_improvements(scores, settings, expected):
    assert after(*scores, **settings) == expected


def test_improvements_are_counted_as_the_callback_of_transformers_counts_them():
    """One evaluation after the other, the best score so far kept by the rule of Trainer._determine_best_metric."""
    from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

    scores = [0.5, 0.52, 0.53, 0.5, 0.56, 0.565, 0.64, 0.645, 0.63]
    callback, state, best = EarlyStoppingCallback(3, 0.03), TrainerState(), Best()

    class Arguments:
        greater_is_better = True

    for step, score in enumerate(scores, start=1):
        callback.check_metric_value(Arguments(), state, TrainerControl(), score)
        state.best_metric = score if state.best_metric is None else max(state.best_metric, score)
        best = best.after(score, step, greater_is_better=True, threshold=0.03)
        assert (best.score, best.num_worse) == (state.best_metric, callback.early_stopping_patience_counter)
