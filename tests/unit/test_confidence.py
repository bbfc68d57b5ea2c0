"""Which predicted rows are sure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from ringtune.train.contract import UsageError
from ringtune.train.predict import confidence
from ringtune.train.predict.config import PredictConfig, check
from ringtune.train.predict.report import coverage
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression

TWO = Classification(None, ("down", "up"))
LABELS = MultiLabel(None, ("a", "b"), (0.5, 0.9))


def rows(**columns) -> pa.RecordBatch:
    arrays = {
        name: pa.array(values, pa.float32() if name.startswith("probability") else None)
        for name, values in columns.items()
    }
    return pa.RecordBatch.from_pydict(arrays)


def sure(batch, task, least, top_k=None) -> list[str]:
    return confidence.sure_rows(batch, task, least, top_k).column("text").to_pylist()


def test_a_row_is_as_sure_as_its_class_is_probable():
    batch = rows(text=list("pqrs"), probability_down=[0.04, 0.95, 0.6, None], probability_up=[0.96, 0.05, 0.4, None])
    assert sure(batch, TWO, 0.95) == ["p", "q"]  # 0.95 in float32 is a little less than 0.95
    assert sure(batch, TWO, 0.5) == ["p", "q", "r"]  # the last one had an error, and no prediction
    assert sure(batch, TWO, None) == list("pqrs")


def test_of_the_best_classes_the_first_one_counts_whatever_columns_are_kept():
    kept = {"probability_down": [1.0, 1.0], "probability_up": [0.0, 0.0]}
    batch = rows(text=list("pq"), probability=[0.5, 0.97], probability_2=[0.4, 0.03], **kept)
    assert sure(batch, TWO, 0.95, top_k=2) == ["q"]


def test_with_labels_each_has_to_be_there_or_not_for_sure():
    given = [["a"], [], ["a", "b"], ["a"], ["a"]]
    batch = rows(
        text=list("pqrst"),
        labels=given,
        probability_a=[0.97, 0.02, 0.99, 0.6, 0.99],
        probability_b=[0.01, 0.03, 0.96, 0.01, 0.85],  # the last one is likely, and below its threshold
    )
    assert sure(batch, LABELS, 0.95) == ["p", "q", "r"]
    expected = np.array([0.97, 0.97, 0.96, 0.6, 0.15], dtype=np.float32)
    np.testing.assert_allclose(confidence.confidence(batch, LABELS), expected, rtol=1e-6)


def test_what_has_no_probability_of_a_row_is_refused():
    with pytest.raises(UsageError, match="--min_confidence: the model predicts a number: .* known of classes"):
        confidence.require_probabilities(Regression(None), 0.9, None)
    with pytest.raises(UsageError, match="--min_confidence --top_k: a row is sure if all its labels are"):
        confidence.require_probabilities(LABELS, 0.9, 1)
    confidence.require_probabilities(Regression(None), None, None)
    confidence.require_probabilities(TWO, 0.9, 2)


@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan")])
def test_a_confidence_out_of_range_is_refused(value):
    with pytest.raises(UsageError, match="--min_confidence: .* is out of range"):
        check(PredictConfig("m", "in.csv", "out.csv", min_confidence=value))


def test_coverage_is_reported_where_rows_are_left_out():
    assert coverage(None, 4, 4) == ({}, "")
    facts, words = coverage(0.95, 3, 4)
    assert facts == {"num_written": 3, "coverage": 0.75, "min_confidence": 0.95}
    assert words == "3 with a confidence of at least 0.95 (coverage 0.7500) "
