"""The rules of prediction: names, numbers and scores, without ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import scores
from ringtune.train.contract import UsageError
from ringtune.train.predict import config as settings
from ringtune.train.predict import predictor
from ringtune.train.step import Precision
from ringtune.train.task.classification import Classification, probabilities
from ringtune.train.task.regression import Regression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import BertConfig, BertForSequenceClassification


def classes(*names: str) -> Classification:
    return Classification(None, names)


def test_columns_are_named_by_class_or_by_place():
    logits = np.zeros((1, 3), dtype=np.float32)
    assert list(classes("no", "yes").predictions(logits[:, :2])) == ["label", "probability_no", "probability_yes"]
    assert list(classes("a", "b", "c").predictions(logits, 2)) == ["label", "probability", "label_2", "probability_2"]
    assert list(Regression(None).predictions(logits[:, :1])) == ["value"]


def test_a_label_is_a_name_in_any_spelling_of_training_or_the_number_of_a_nameless_class():
    assert classes("down", "up").labels(["up", " up ", "UP", None, "x"]).tolist() == [1, 1, -1, -1, -1]
    assert classes("False", "True").labels(["true", "False", "0"]).tolist() == [1, 0, -1]
    assert classes("LABEL_0", "LABEL_1").labels(["1", "LABEL_0", "2"]).tolist() == [1, 0, -1]
    assert classes("1", "0").labels(["1", "0"]).tolist() == [0, 1]
    rating = Regression(None).labels
    assert np.isnan(rating(["x", None, "nan", "inf", "1e300", ""])).all() and rating([" 0.5", "-1e2"]).tolist() == [
        0.5,
        -100,
    ]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_weights_that_are_cast_once_give_the_bits_that_autocast_gives(autocast):
    torch.manual_seed(3)
    shape = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    network = BertForSequenceClassification(BertConfig(**shape)).eval()
    precision, ids = Precision(torch.device("cpu"), autocast), torch.arange(48).reshape(4, 12)
    with torch.inference_mode(), precision.context():
        before = network(ids).logits
        assert predictor.cast_weights(network, precision) is network
        assert torch.equal(network(ids).logits, before)
    assert network.classifier.weight.dtype == (autocast or torch.float32)


@pytest.mark.filterwarnings("ignore:A single label")
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 60),
)
def test_scores_part_by_part_are_those_of_all_rows_at_once_to_the_last_digit(rows, part_size):
    labels = np.array([label for label, _ in rows])
    logits = np.array([each for _, each in rows], dtype=np.float32)

    def parts():
        return [
            (logits[start : start + part_size], labels[start : start + part_size])
            for start in range(0, len(labels), part_size)
        ]

    task = classes("a", "b", "c")
    found, whole = task.scores(parts()), task.scores([(logits, labels)])
    assert found is not None and found == whole
    guesses = logits.argmax(axis=1)
    assert found.values["accuracy"] == accuracy_score(labels, guesses)
    assert found.values["f1"] == f1_score(labels, guesses, average="macro", zero_division=0)
    assert found.values["matthews_correlation"] == matthews_corrcoef(labels, guesses)
    confusion = found.details["confusion_matrix"]["counts"]
    assert confusion[int(labels[0])][int(guesses[0])] >= 1 and sum(map(sum, confusion)) == len(labels) == found.num_rows


def test_a_confusion_matrix_can_be_read():
    found = scores.confusion_table(("negative", "positive"), np.array([[3, 1], [0, 2]]))
    assert found.splitlines() == [
        "true / predicted  negative  positive",
        "negative                 3         1",
        "positive                 0         2",
    ]


def test_probabilities_are_a_softmax_even_of_large_logits():
    assert probabilities(np.array([[1000.0, 1000.0], [0.0, -np.inf]], dtype=np.float32)).tolist() == [
        [0.5, 0.5],
        [1, 0],
    ]


@pytest.mark.parametrize("name", ["config.yaml", "state.json"])
def test_what_a_run_trained_with_is_taken_over_unless_set_otherwise(tmp_path, name):
    run = {"max_seq_length": 64, "per_device_eval_batch_size": 8, "bf16": True}
    (tmp_path / name).write_text(json.dumps({"config": run} if name == "state.json" else run))
    config = settings.PredictConfig(str(tmp_path), "in.csv", "out.csv")
    for length in (None, 64):
        found = settings.resolve(config, settings.settings_of_run(str(tmp_path)), length)
        assert (found.max_seq_length, found.batch_tokens, found.bf16) == (64, 512, True)
    config = settings.PredictConfig(str(tmp_path), "in.csv", "out.csv", max_seq_length=16, batch_tokens=99, fp16=True)
    found = settings.resolve(config, run, 64)
    assert (found.max_seq_length, found.batch_tokens, found.bf16, found.fp16) == (16, 99, False, True)


def test_a_folder_that_is_no_runs_settles_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("- not\n- settings\n")
    assert settings.settings_of_run(str(tmp_path)) == {}
    found = settings.resolve(settings.PredictConfig("m", "in.csv", "out.csv"), {}, None)
    assert (found.max_seq_length, found.batch_tokens, found.bf16) == (None, 1024, False)


def test_settings_that_cannot_work_are_one_line():
    for words, message in (
        (["--bf16", "--fp16"], "both are set"),
        (["--batch_tokens", "0"], "0 is too few"),
        (["--on_error", "skip"], "on_error"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            settings.parse(["--model_name_or_path", "m", "--input", "a.csv", "--output", "b.csv", *words])
        assert "\n" not in str(caught.value)
