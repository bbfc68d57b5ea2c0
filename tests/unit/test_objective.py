"""Weights of classes and shaped losses are exact over any parting of a batch; balanced sampling is balanced."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import config, objective
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.objective import Objective
from ringtune.train.order import DataOrder, balanced_order
from ringtune.train.task.classification import Classification
from ringtune.train.task.regression import Regression
from ringtune.train.tokens import Features, Padding
from sklearn.utils.class_weight import compute_class_weight

TASK = Classification(Columns(("text",), "label"), ("a", "b", "c"))
CPU = torch.device("cpu")


def features(labels) -> Features:
    number = len(labels)
    return Features(
        token_columns={},
        offsets=np.arange(number + 1),
        feature_columns={"labels": np.asarray(labels)},
        row_of=np.arange(number),
        num_terms=np.ones(number, dtype=np.int32),
        lengths=np.ones(number, dtype=np.int32),
        padding=Padding(0, 0, "right"),
    )


def choose(task=TASK, labels=(0, 0, 0, 1), **settings):
    lines = []
    found = objective.choose(config.TrainConfig("m", **settings), task, features(labels), CPU, lines.append)
    return found, lines


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 4), st.sampled_from([0.0, 2.0]))
def test_the_loss_of_a_batch_is_that_of_its_parts(labels, num_shards, gamma):
    """With weights it is torch's weighted mean over the whole batch, whatever the shards."""
    weights = torch.tensor([0.5, 1.0, 3.0])
    logits = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(len(labels)))
    goal, table = Objective(focal_gamma=gamma, class_weights=weights), features(labels)
    everything = np.arange(len(labels))
    total = goal.total_weight(table, everything)
    parts = [
        goal.losses(TASK, SimpleNamespace(logits=logits[part]), {"labels": torch.tensor(labels)[part]}).sum() / total
        for part in np.array_split(everything, num_shards)
    ]
    targets = torch.tensor(labels)
    rows = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    shaped = (1 - logits.softmax(1)[torch.arange(len(labels)), targets]) ** gamma * rows * weights[targets]
    assert float(sum(parts)) == pytest.approx(float(shaped.sum() / weights[targets].sum()), rel=1e-5)
    if not gamma:
        whole = torch.nn.functional.cross_entropy(logits, targets, weight=weights)
        assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


def test_without_weights_and_shape_the_loss_is_the_tasks_own():
    output, batch = SimpleNamespace(logits=torch.randn(3, 3)), {"labels": torch.tensor([0, 1, 2])}
    goal, _ = choose()
    assert torch.equal(goal.losses(TASK, output, batch), TASK.losses(output, batch, 0.0))
    assert goal.total_weight(features([0, 1, 2]), np.array([0, 2])) == 2


def test_a_row_that_is_right_for_sure_has_a_gradient_of_zero():
    for gamma in (0.5, 1.0, 2.0):
        logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
        goal = Objective(focal_gamma=gamma)
        goal.losses(TASK, SimpleNamespace(logits=logits), {"labels": torch.tensor([0])}).sum().backward()
        assert torch.isfinite(logits.grad).all() and float(logits.grad.abs().max()) < 1e-5


def test_automatic_weights_are_scikit_learns():
    labels = [0, 0, 0, 0, 1, 2, 2]
    found, lines = choose(labels=labels, class_weights="auto")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(found.class_weights.numpy(), expected, rtol=1e-6)
    assert lines == ["class weights: a 0.5833, b 2.333, c 1.167"]
    assert choose(labels=[0, 1, 1], class_weights="auto")[0].class_weights.tolist()[2] == 0.0  # it has no rows


def test_weights_are_given_in_order_or_by_name():
    for words in ("1,2,3", " 1, 2 ,3", "c=3,a=1,b=2"):
        assert choose(class_weights=words)[0].class_weights.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("1,2", "1,2 has 2 for 3 classes; auto, or a number above 0 for each of 3 classes"),
        ("1,2,x", "'x' is no weight"),
        ("1,2,0", "'0' is no weight"),
        ("1,2,inf", "'inf' is no weight"),
        ("1,2,1e308", "'1e308' is infinite as float32; auto, or a number above 0"),
        ("a=1,b=2,c=1e-320", "'1e-320' is 0 as float32"),
        ("a=1,b=2", "has 2 for 3 classes"),
        ("a=1,b=2,d=1", "there is no class d"),
        ("a=1,a=2,b=3", "names a class twice"),
        ("balanced", "has 1 for 3 classes"),
    ],
)
def test_weights_that_are_none_are_refused(words, message):
    with pytest.raises(UsageError, match="--class_weights: ") as caught:
        choose(class_weights=words)
    assert message in str(caught.value)


@pytest.mark.parametrize("flag", [{"class_weights": "auto"}, {"focal_gamma": 2.0}, {"balanced_sampling": True}])
def test_numbers_have_no_classes(flag):
    with pytest.raises(UsageError, match=f"--{next(iter(flag))}: the rows have no classes: learnt is a number"):
        choose(task=Regression(Columns(("text",), "label")), labels=(0.5, 1.5, 2.0, 3.0), **flag)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_balanced_sampling_draws_classes_and_rows_of_a_class_as_often(labels, epoch):
    labels = np.array(labels)
    order = balanced_order(1, epoch, labels)
    assert len(order) == len(labels) and np.array_equal(order, balanced_order(1, epoch, labels))
    of_class = [np.count_nonzero(labels[order] == each) for each in np.unique(labels)]
    assert max(of_class) - min(of_class) <= 1
    times = np.bincount(order, minlength=len(labels))
    assert all(np.ptp(times[labels == each]) <= 1 for each in np.unique(labels))


def test_the_order_of_a_balanced_run_is_that_of_its_steps_alone():
    labels = np.array([0] * 17 + [1] * 3)
    orders = [DataOrder(5, 20, 6, labels) for _ in range(2)]
    forward = [orders[0].rows(step) for step in range(9)]
    for step in (7, 2, 8, 0, 4):  # as after resuming anywhere
        assert np.array_equal(orders[1].rows(step), forward[step])
    assert sum(np.count_nonzero(labels[each] == 1) for each in forward[:4]) == 10
    assert replace(orders[0]) == orders[1]


def test_classes_are_not_corrected_for_twice():
    words = ["--model_name_or_path", "m", "--train_file", "x", "--balanced_sampling", "true", "--class_weights"]
    with pytest.raises(UsageError, match="--class_weights auto --balanced_sampling: both are set: .*; leave one out"):
        config.parse([*words, "auto"])
    assert config.parse([*words, "a=1,b=5"])[0].class_weights == "a=1,b=5"  # what a user chose may be meant
