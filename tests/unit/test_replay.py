"""Replayed rows: which of which step, whose they are, and that they are what the earlier run was trained on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from earlier_runs import write_rows
from hypothesis import given
from hypothesis import strategies as st
from preparing import load
from ringtune.train import earlier, objective, replay
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.label_sets import LabelSets
from ringtune.train.order import DataOrder
from ringtune.train.task.multilabel import MultiLabel

# Which rows


@pytest.mark.parametrize(
    ("batch", "share", "expected"), [(32, 0.2, 6), (32, 0.203125, 7), (10, 0.25, 3), (32, 0.001, 1), (2, 0.5, 1)]
)
def test_half_a_row_is_rounded_up_and_one_is_the_least(batch, share, expected):
    assert replay.rows_of_step(batch, share) == expected


def test_a_share_that_leaves_no_new_row_is_refused():
    with pytest.raises(UsageError, match=r"0.9 of a global batch of 4 rows is all of it"):
        replay.rows_of_step(4, 0.9)


@pytest.mark.parametrize("text", ["runs/old", "runs/old=", "=0.2", "runs/old=0", "runs/old=1", "old=-1", "old=nan"])
def test_a_replay_that_names_no_run_or_no_share_is_refused(text):
    with pytest.raises(UsageError, match="names no run and its share"):
        earlier.split_replay(text)
    assert earlier.split_replay("a=b/old=0.5") == ("a=b/old", 0.5)


orders = st.builds(
    lambda seed, new, old, batch, share: replay.order_of(
        TrainConfig("m", replay=f"old={share}", seed=seed), new, old, batch, None
    ),
    st.integers(0, 5),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(4, 16),
    st.sampled_from([0.1, 0.25, 0.5, 0.7]),
)


@given(orders)
def test_new_rows_come_once_in_an_epoch_and_earlier_ones_in_rounds(order):
    num_steps = 3 * order.steps_per_epoch
    steps = [order.rows(step) for step in range(num_steps)]
    plain = DataOrder(order.seed, order.num_rows, order.new_per_step)
    replayed = []
    for step, rows in enumerate(steps):
        is_new = rows < order.num_rows
        assert rows[is_new].tolist() == plain.rows(step).tolist()
        assert len(rows) <= order.global_batch_size and not is_new.all()
        replayed += (rows[~is_new] - order.num_rows).tolist()
    whole = [
        Counter(replayed[start : start + order.num_replayed]) for start in range(0, len(replayed), order.num_replayed)
    ]
    for each in whole:  # a round has each row once; the last one may have only begun
        assert set(each.values()) == {1} and set(each) <= set(range(order.num_replayed))
    assert len(replayed) == 3 * order.replayed_per_epoch
    assert order.place(order.steps_per_epoch) == (1, 0)


@given(orders, st.integers(0, 50))
def test_a_step_does_not_depend_on_those_before_it(order, step):
    replay.round_order.cache_clear()
    alone = order.rows(step)
    for before in range(step):
        order.rows(before)
    assert alone.tolist() == order.rows(step).tolist()


def test_rounds_have_orders_of_their_own_and_classes_are_balanced_among_new_rows():
    order = replay.order_of(TrainConfig("m", replay="old=0.5"), 40, 20, 8, None)
    drawn = [row for step in range(10) for row in order.rows(step) if row >= 40]
    assert sorted(drawn[:20]) == sorted(drawn[20:40]) and drawn[:20] != drawn[20:40]
    labels = np.array([0] * 30 + [1] * 10 + [2] * 20)  # the last ones are the earlier run's
    balanced = replay.order_of(TrainConfig("m", replay="old=0.5"), 40, 20, 8, labels)
    new = [row for step in range(10) for row in balanced.rows(step) if row < 40]
    assert np.bincount(labels[new]).tolist() == [20, 20]


def test_a_full_step_has_its_share_and_a_short_one_too():
    order = replay.order_of(TrainConfig("m", replay="old=0.25"), 31, 100, 8, None)
    sizes = [(int((rows < 31).sum()), int((rows >= 31).sum())) for rows in map(order.rows, range(6))]
    assert sizes == [(6, 2)] * 5 + [(1, 1)]
    assert order.steps_per_epoch == 6 and order.replayed_per_epoch == 11


# Whose they are

NEW = "text,label\nn0,up\nn1,down\nn2,up\n"
OLD = "text,mood,label\no0,down,x\no1,up,x\n"


@pytest.fixture
def old_run(tmp_path):
    (tmp_path / "old.csv").write_text(OLD)
    settings = {"train_file": str(tmp_path / "old.csv"), "label_column_name": "mood", "seed": 3}
    digest = replay.data.open_splits(TrainConfig("m", train_file=settings["train_file"]))["train"].digest
    return write_rows(tmp_path / "old", settings, digest), settings


def test_their_features_stand_behind_the_new_ones_with_labels_by_name(tmp_path, old_run):
    found = load(tmp_path, NEW, replay=f"{old_run[0]}=0.5")
    assert (found.num_new, found.num_replayed, found.train.num_features) == (3, 2, 5)
    assert found.train.feature_columns["labels"].tolist() == [1, 0, 1, 0, 1]
    assert found.train.row_of.tolist() == [0, 1, 2, 3, 4]
    line = f"{tmp_path}/old.csv: text: column text; label: column mood; not read: label; --replay draws from 2 rows"
    assert line in found.report
    alone = load(tmp_path, NEW)
    assert alone.parts == {} and alone.num_new == 3 and alone.digest != found.digest
    assert alone.rows_digest == found.rows_digest


def test_weights_of_classes_count_a_row_as_often_as_it_is_drawn(tmp_path, old_run):
    found = load(tmp_path, NEW, replay=f"{old_run[0]}=0.5")
    counts = objective.count_labels(found.task, found.train, [(3, 1.0), (2, 1.5)])
    assert counts == {"down": 1 + 1.5, "up": 2 + 1.5}


def test_only_the_rows_that_the_earlier_run_drew_are_replayed(tmp_path, old_run):
    run, settings = old_run
    write_rows(run, {**settings, "max_train_samples": 1}, None)
    found = load(tmp_path, NEW, replay=f"{run}=0.5")
    assert found.num_replayed == 1


def test_rows_that_have_changed_are_refused_and_unknown_ones_reported(tmp_path, old_run):
    run, settings = old_run
    write_rows(run, settings, None)
    line = "was trained before the digest of its rows was kept: whether these are the same was not checked"
    assert any(line in each for each in load(tmp_path, NEW, replay=f"{run}=0.5").report)
    write_rows(run, settings, "other")
    with pytest.raises(UsageError, match=f"--replay {run}: .*old.csv is not what it was when that run was trained"):
        load(tmp_path, NEW, replay=f"{run}=0.5")


def test_rows_that_are_not_there_are_refused_by_the_name_of_the_run(tmp_path, old_run):
    run = old_run[0]
    (tmp_path / "old.csv").unlink()
    with pytest.raises(UsageError, match=f"--replay {run}: --train_file .*old.csv: there is no such file"):
        load(tmp_path, NEW, replay=f"{run}=0.5")


def test_a_label_that_the_new_task_lacks_is_refused_with_its_line(tmp_path, old_run):
    with pytest.raises(UsageError, match=r"old.csv:2: the label 'down' does not occur in the training rows"):
        load(tmp_path, "text,label\na,up\nb,odd\n", replay=f"{old_run[0]}=0.5")


def test_the_separator_that_the_earlier_run_took_over_is_used(tmp_path):
    (tmp_path / "old.csv").write_text("text,label\no0,down; up\no1,\n")
    task = MultiLabel(Columns(("text",), "label", sets=LabelSets(separator=";")), ("down", "up"))
    run = write_rows(tmp_path / "old", {"train_file": str(tmp_path / "old.csv"), "seed": 3}, None, task)
    new = '{"text": "a", "label": ["up"]}\n{"text": "b", "label": ["down"]}\n'
    found = load(tmp_path, new, name="new.jsonl", replay=f"{run}=0.5")
    assert found.train.feature_columns["labels"].tolist() == [[0, 1], [1, 0], [1, 1], [0, 0]]


def test_settings_that_cannot_be_read_are_refused(tmp_path, old_run):
    (old_run[0] / "config.yaml").write_text("[")
    with pytest.raises(UsageError, match="its settings cannot be read"):
        load(tmp_path, NEW, replay=f"{old_run[0]}=0.5")
    assert np.array_equal(DataOrder(1, 5, 2).rows(0), replay.order_of(TrainConfig("m", seed=1), 5, 0, 2, None).rows(0))


@pytest.mark.parametrize(
    ("old", "settings", "kind"),
    [
        ('{"tokens": ["a"], "ner_tags": ["O"]}\n{"tokens": ["b"], "ner_tags": ["B-X"]}\n', {}, "token_classification"),
        ('{"text": "a", "label": ["x"]}\n{"text": "b", "label": []}\n', {}, "multi_label"),
        ('{"text": "a", "label": 0.5}\n{"text": "b", "label": 0.25}\n', {}, "regression"),
        ('{"text": "a b"}\n{"text": "b a"}\n', {"task": "masked_lm"}, "masked_lm"),
    ],
)
def test_a_run_of_another_kind_is_refused_and_both_are_named(tmp_path, old, settings, kind):
    (tmp_path / "old.jsonl").write_text(old)
    run = write_rows(tmp_path / "old", {"train_file": str(tmp_path / "old.jsonl"), **settings}, None)
    content = json.loads((run / "task.json").read_text())
    (run / "task.json").write_text(json.dumps({**content, "kind": kind}))
    with pytest.raises(UsageError, match=rf"--replay .*it was trained for {kind}, and the rows of .* of another kind"):
        load(tmp_path, NEW, replay=f"{run}=0.5")
