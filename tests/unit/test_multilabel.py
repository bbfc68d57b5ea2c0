"""The rules of rows with several labels: loss, thresholds, scores and columns, without ranks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ringtune.train import checks, config, objective
from ringtune.train import task as tasks
from ringtune.train.columns import Columns
from ringtune.train.contract import FITTED_TASK_FILE, TASK_FILE, UsageError
from ringtune.train.label_sets import LabelSets
from ringtune.train.task import thresholds
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel, probabilities
from ringtune.train.tokens import Features, Padding
from sklearn import metrics
from transformers import BertConfig

NAMES = ("a", "b", "c")
TASK = MultiLabel(Columns(("text",), "label", sets=LabelSets()), NAMES)
LOGITS = arrays.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-9, 9, width=32))
CPU = torch.device("cpu")


def drawn(num_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (num_rows, 3)).astype(np.int8)


def features(labels) -> Features:
    number = len(labels)
    return Features(
        token_columns={},
        offsets=np.arange(number + 1),
        feature_columns={"labels": np.asarray(labels, dtype=np.int8)},
        row_of=np.arange(number),
        num_terms=np.ones(number, dtype=np.int32),
        lengths=np.ones(number, dtype=np.int32),
        padding=Padding(0, 0, "right"),
    )


def choose(labels=((1, 0, 0), (1, 1, 0), (1, 0, 0), (0, 0, 0)), **settings):
    lines: list[str] = []
    return objective.choose(config.TrainConfig("m", **settings), TASK, features(labels), CPU, lines.append), lines


def loss(goal, logits, labels) -> torch.Tensor:
    """Return the loss of a step whose global batch these rows are."""
    batch = {"labels": torch.from_numpy(labels)}
    losses = goal.losses(TASK, SimpleNamespace(logits=torch.from_numpy(logits)), batch)
    assert losses.shape == (len(labels),)
    return losses.sum() / goal.total_weight(features(labels), np.arange(len(labels)))


# Loss


@given(LOGITS, st.integers(0, 99))
def test_the_loss_is_that_of_transformers_and_of_torch_with_weights(logits, seed):
    labels = drawn(len(logits), seed)
    outputs, targets = torch.from_numpy(logits), torch.from_numpy(labels).float()
    assert float(loss(choose()[0], logits, labels)) == pytest.approx(
        float(torch.nn.BCEWithLogitsLoss()(outputs, targets)), rel=1e-5
    )
    weighted = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.5, 4.0]))(outputs, targets)
    assert float(loss(choose(class_weights="a=1,c=4,b=2.5")[0], logits, labels)) == pytest.approx(
        float(weighted), rel=1e-5
    )
    smooth = torch.nn.BCEWithLogitsLoss()(outputs, targets * 0.8 + 0.1)
    assert float(loss(choose(label_smoothing_factor=0.2)[0], logits, labels)) == pytest.approx(float(smooth), rel=1e-5)
    right = torch.where(targets == 1, outputs.sigmoid(), 1 - outputs.sigmoid()).double()
    focal = ((1 - right) ** 2 * -right.log()).mean()
    assert float(loss(choose(focal_gamma=2.0)[0], logits, labels)) == pytest.approx(float(focal), rel=1e-3, abs=1e-6)


def test_the_loss_of_a_batch_is_that_of_its_parts():
    logits, labels = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32), drawn(11, 2)
    goal, _ = choose(class_weights="auto")
    total = goal.total_weight(features(labels), np.arange(11))
    parts = [
        goal.losses(
            TASK, SimpleNamespace(logits=torch.from_numpy(logits[part])), {"labels": torch.from_numpy(labels[part])}
        )
        for part in np.array_split(np.arange(11), 3)
    ]
    assert float(torch.cat(parts).sum() / total) == pytest.approx(float(loss(goal, logits, labels)), rel=1e-6)


def test_automatic_weights_are_rows_without_a_label_over_rows_with_it():
    found, lines = choose(class_weights="auto")
    assert found.positive_weights.tolist() == pytest.approx([1 / 3, 3.0, 1.0]) and found.class_weights is None
    assert lines == ["weights of labels where a row has them: a 0.3333, b 3, c 1"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"balanced_sampling": True}, "--balanced_sampling: a row may have several labels"),
        ({"class_weights": "auto", "label_smoothing_factor": 0.1}, "--class_weights --label_smoothing_factor: both"),
        ({"class_weights": "1,2"}, "--class_weights: 1,2 has 2 for 3 classes"),
    ],
)
def test_what_does_not_apply_is_refused_by_name(flags, message):
    with pytest.raises(UsageError) as caught:
        choose(**flags)
    assert message in str(caught.value)


# Thresholds


def f1_at(threshold, probability, is_set):
    return metrics.f1_score(is_set, probability >= threshold, zero_division=0)


@given(LOGITS, st.integers(0, 99))
def test_a_threshold_has_the_best_f1_of_all_and_the_order_of_rows_does_not_show(logits, seed):
    probability, is_set = probabilities(logits)[:, 0], drawn(len(logits), seed)[:, 0] == 1
    found = thresholds.best(probability, is_set)
    assert 0 < found < 1
    if is_set.any():
        tries = [0.0, *probability.astype(np.float64)]
        assert f1_at(found, probability, is_set) == pytest.approx(max(f1_at(x, probability, is_set) for x in tries))
    order = np.random.default_rng(seed).permutation(len(probability))
    assert thresholds.best(probability[order], is_set[order]) == found


def test_ties_are_nearest_to_a_half_and_a_label_without_rows_has_a_half():
    def best(probability, is_set):
        return thresholds.best(np.array(probability, dtype=np.float32), np.array(is_set, dtype=bool))

    assert best([0.9, 0.2], [0, 0]) == 0.5
    assert best([0.75, 0.25], [1, 0]) == 0.5  # anything above 0.25, up to 0.75
    assert best([0.25, 0.125], [1, 0]) == 0.1875  # the middle
    assert best([0.875, 0.75], [1, 0]) == 0.8125
    assert best([0.75, 0.25], [1, 1]) == 0.125  # all rows have it
    # Given to 1 of 2, or to 4: F1 is 2/3 either way, and the cut between 0.3 and 0.6 is nearer to a half.
    assert best([0.95, 0.9, 0.6, 0.3], [1, 0, 0, 1]) == best([0.3, 0.6, 0.9, 0.95], [1, 0, 0, 1])
    assert best([0.5, 0.5, 0.5], [1, 0, 1]) == 0.5  # equal probabilities cannot be parted
    assert best([np.nan, 0.9], [1, 0]) == 0.5


def test_thresholds_the_user_chose_are_not_fitted_and_other_tasks_have_none():
    outputs, labels = np.array([[2, 2, 2], [-2, -1, 0]], dtype=np.float32), np.array([[1, 0, 0], [0, 1, 0]])
    assert TASK.fitted(outputs, labels).thresholds == (0.5, pytest.approx(1 / (1 + np.exp(1)) / 2), 0.5)
    assert tasks.at_threshold(TASK, 0.3).fitted(outputs, labels).thresholds == (0.3, 0.3, 0.3)
    assert tasks.at_threshold(TASK, None) is TASK
    with pytest.raises(
        UsageError,
        match="--threshold: it is for rows that may have several labels, and .* classes down, up",
    ):
        tasks.at_threshold(Classification(None, ("down", "up")), 0.3)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_a_threshold_that_is_none_is_refused(value):
    with pytest.raises(UsageError, match=f"--threshold: {value} is out of range"):
        checks.check(config.TrainConfig("m", train_file="t", threshold=value))


# Scores


@pytest.mark.filterwarnings("ignore")
@given(st.integers(1, 30), st.integers(0, 1 << 30), st.integers(1, 4))
def test_scores_are_scikit_learns_and_do_not_depend_on_how_rows_are_parted(num_rows, seed, num_parts):
    """Rows without a label are frequent, and so are equal probabilities."""
    draw = np.random.default_rng(seed)
    labels = (draw.random((num_rows, 3)) < 0.3).astype(np.int8)
    logits = draw.normal(-0.5, 1, (num_rows, 3)).round(1).astype(np.float32)
    task = TASK.fitted(logits[::2], labels[::2]) if seed % 2 else tasks.at_threshold(TASK, 0.5)
    parts = [(logits[rows], labels[rows]) for rows in np.array_split(np.arange(len(logits)), num_parts) if len(rows)]
    found = task.scores(parts)
    assert found.values == task.scores([(logits, labels)]).values and found.num_rows == len(labels)
    guesses = (probabilities(logits) >= np.array(task.thresholds)).astype(int)
    for average, empty in (("micro", 0), ("macro", 0), ("samples", 1)):
        expected = metrics.f1_score(labels, guesses, average=average, zero_division=empty)
        assert found.values[f"f1_{average}"] == pytest.approx(expected, abs=1e-12)
    assert found.values["subset_accuracy"] == pytest.approx(metrics.accuracy_score(labels, guesses), abs=1e-12)
    assert found.values["hamming_loss"] == pytest.approx(metrics.hamming_loss(labels, guesses), abs=1e-12)
    expected = torch.nn.BCEWithLogitsLoss()(torch.from_numpy(logits).double(), torch.from_numpy(labels).double())
    assert found.values["loss"] == pytest.approx(float(expected), rel=1e-9)
    per_label = metrics.precision_recall_fscore_support(labels, guesses, zero_division=0)
    for row, *expected in zip(found.details["labels"], *per_label, strict=True):
        assert [row[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(expected)
    assert found.text.splitlines()[0].split() == ["label", "threshold", "precision", "recall", "f1", "support"]
    json.dumps(found.as_json())


def test_no_row_with_a_label_gives_no_scores():
    assert TASK.scores([(np.empty((0, 3), dtype=np.float32), np.empty((0, 3), dtype=np.int8))]) is None


# Rows and columns


def test_labels_are_known_by_name_and_rows_without_any_are_rows():
    found = TASK.labels(['["c", "a"]', "[]", '["d"]', None, '"words"', "no JSON", "3"])
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], *[[-1, -1, -1]] * 5]
    assert TASK.has_label(found).tolist() == [True, True, *[False] * 5]
    assert MultiLabel(None, ("LABEL_0", "LABEL_1")).labels(['["1", "LABEL_0"]']).tolist() == [[1, 1]]


def test_predictions_are_the_labels_over_their_thresholds_and_probabilities():
    task = MultiLabel(None, NAMES, (0.9, 0.5, 0.1))
    found = task.predictions(np.array([[2, 0, -2], [-9, -9, -9], [9, 9, 9]], dtype=np.float32))
    assert list(found) == ["labels", "probability_a", "probability_b", "probability_c"]
    assert found["labels"].to_pylist() == [["b", "c"], [], ["a", "b", "c"]]
    assert found["probability_a"].to_pylist()[0] == pytest.approx(1 / (1 + np.exp(-2)))
    best = task.predictions(np.array([[2, 0, -2]], dtype=np.float32), top_k=2)
    assert {name: each.to_pylist()[0] for name, each in best.items()} == {
        "labels": ["b", "c"],
        "label": "a",
        "probability": pytest.approx(0.8807971),
        "label_2": "b",
        "probability_2": 0.5,
    }
    assert task.predictions(np.empty((0, 3), dtype=np.float32))["labels"].type == pa.list_(pa.string())


@given(LOGITS)
def test_probabilities_are_torchs(logits):
    np.testing.assert_allclose(probabilities(logits), torch.from_numpy(logits).double().sigmoid().numpy(), rtol=1e-6)
    assert not np.isnan(probabilities(logits * np.float32(1e30))).any()


@pytest.mark.parametrize("sets", [LabelSets(), LabelSets(columns=NAMES), LabelSets(separator=";")])
@pytest.mark.parametrize("cuts", [None, (0.1, 0.25, 1 / 3)])
def test_a_task_is_read_as_it_was_written_and_a_fitted_one_first(tmp_path, sets, cuts):
    task = MultiLabel(Columns(("text",), "label", sets=sets), NAMES, cuts)
    (tmp_path / TASK_FILE).write_bytes(tasks.to_bytes(task, 32))
    assert tasks.read(tmp_path) == (task, 32)
    fitted = tasks.at_threshold(task, 0.7)
    (tmp_path / FITTED_TASK_FILE).write_bytes(tasks.to_bytes(fitted, 32))
    assert tasks.read(tmp_path)[0].thresholds == (0.7, 0.7, 0.7)


def test_thresholds_that_are_not_those_of_the_labels_are_refused(tmp_path):
    content = json.loads(tasks.to_bytes(MultiLabel(None, NAMES, (0.1, 0.2, 0.3)), 32))
    (tmp_path / TASK_FILE).write_text(json.dumps({**content, "thresholds": [0.1]}))
    with pytest.raises(UsageError, match="task.json: it cannot be read: ValueError 1 thresholds for 3 labels"):
        tasks.read(tmp_path)


def test_a_model_that_was_trained_elsewhere_gives_several_labels_if_its_configuration_says_so():
    names = {0: "x", 1: "y"}
    found = tasks.of_model(BertConfig(problem_type="multi_label_classification", id2label=names), "m")
    assert found == MultiLabel(None, ("x", "y"))
    assert tasks.of_model(BertConfig(problem_type="multi_label_classification", num_labels=1), "m").width == 1
    assert tasks.of_model(BertConfig(id2label=names), "m") == Classification(None, ("x", "y"))
