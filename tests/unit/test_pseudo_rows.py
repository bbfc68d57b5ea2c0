"""Rows with predicted labels: how they are read, and what they count."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from preparing import load
from ringtune.train import earlier, objective
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.objective import Objective

TRAIN = "text,label\nn0,up\nn1,down\nn2,up\n"


def load_with(tmp_path, content, train=TRAIN, *, ending="csv", name="train.csv", **settings):
    path = tmp_path / f"predicted.{ending}"
    path.write_text(content)
    return load(tmp_path, train, name=name, pseudo_file=str(path), pseudo_weight=0.25, **settings)


def test_they_are_trained_on_like_others_and_count_what_is_asked(tmp_path):
    found = load_with(tmp_path, "text,label,probability_up\np0,down,0.01\nn1,up,0.99\n")
    assert (found.num_new, found.num_replayed) == (5, 0)
    assert found.train.feature_columns["labels"].tolist() == [1, 0, 1, 0, 1]
    assert found.train.feature_columns["weights"].tolist() == [1, 1, 1, 0.25, 0.25]
    line = "not read: probability_up; 2 rows more to train on, each counts 0.25 in the loss"
    assert any(line in each for each in found.report)
    assert any("predicted.csv: 1 of 2 rows are training rows as well" in each for each in found.report)
    assert "weights" not in found.task.inputs(found.task.collate(found.train, [0, 3], 0))


def test_the_loss_is_the_weighted_mean_however_the_batch_is_parted(tmp_path):
    found = load_with(tmp_path, "text,label\np0,down\np1,up\n")
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor(found.train.feature_columns["labels"])
    rows = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    for of_class in (None, torch.tensor([2.0, 0.5])):
        goal = Objective(class_weights=of_class)
        weights = torch.tensor([1, 1, 1, 0.25, 0.25]) * (1 if of_class is None else of_class[labels])
        expected = (weights * rows).sum() / weights.sum()
        total = goal.total_weight(found.train, np.arange(5))
        assert math.isclose(total, float(weights.sum()))
        for parts in ([[0, 3, 1, 2, 4]], [[4], [0, 1], [3, 2]]):
            losses = []
            for part in parts:
                batch = found.task.collate(found.train, part, 0)
                losses.append(goal.losses(found.task, SimpleNamespace(logits=logits[part]), batch).sum() / total)
            torch.testing.assert_close(sum(losses), expected)


def test_weights_of_classes_count_them_by_their_weight(tmp_path):
    found = load_with(tmp_path, "text,label\np0,down\np1,up\n")
    assert objective.count_labels(found.task, found.train, [(3, 1.0), (2, 0.25)]) == {"down": 1.25, "up": 2.25}


@pytest.mark.parametrize("regression", [True, None])
def test_numbers_are_learnt_with_a_weight_too(tmp_path, regression):
    found = load_with(tmp_path, "text,label\np,0.25\n", "text,label\na,0.5\nb,1.5\n", regression=regression)
    assert found.train.feature_columns["labels"].tolist() == [0.5, 1.5, 0.25]


def test_a_label_that_is_no_class_is_refused_with_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"predicted.csv:3: the label 'odd' does not occur in the training rows"):
        load_with(tmp_path, "text,label\np0,down\np1,odd\n")


def test_the_predicted_column_is_read_where_training_has_another_name_for_it(tmp_path):
    train = "text,mood\nn0,up\nn1,down\n"
    found = load_with(tmp_path, "text,label\np0,down\n", train, label_column_name="mood")
    assert found.train.feature_columns["labels"].tolist() == [1, 0, 0]
    with pytest.raises(UsageError, match="that of column mood, as in training, or the predicted one of column label"):
        load_with(tmp_path, "text,mood,label\np0,up,down\n", train, label_column_name="mood")
    with pytest.raises(UsageError, match="there is no column 'mood'"):
        load_with(tmp_path, "text,other\np0,up\n", train, label_column_name="mood")


def test_lists_of_predicted_labels_are_read_whatever_form_training_had(tmp_path):
    train = "text,up,down\nn0,1,0\nn1,0,0\n"
    predicted = '{"text": "p0", "labels": ["down", "up"], "probability_up": 1.0}\n{"text": "p1", "labels": []}\n'
    found = load_with(tmp_path, predicted, train, ending="jsonl", label_column_name="up,down")
    assert found.train.feature_columns["labels"].tolist() == [[1, 0], [0, 0], [1, 1], [0, 0]]
    with pytest.raises(UsageError, match="column labels holds no lists; predictions as .jsonl or .parquet"):
        load_with(tmp_path, "text,labels\np0,[]\n", train, label_column_name="up,down")


def test_tags_of_words_have_no_weight(tmp_path):
    train = '{"tokens": ["a"], "ner_tags": ["B-ACT"]}\n'
    with pytest.raises(UsageError, match="--pseudo_file: the rows have tags of words"):
        load_with(tmp_path, train, train, ending="jsonl", name="train.jsonl")


def test_a_weight_out_of_range_or_of_nothing_is_refused():
    for weight in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(UsageError, match="--pseudo_weight: .* is out of range"):
            earlier.check(TrainConfig("m", pseudo_file="f.csv", pseudo_weight=weight))
    with pytest.raises(UsageError, match="there are no rows that it weighs"):
        earlier.check(TrainConfig("m", pseudo_weight=0.5))
