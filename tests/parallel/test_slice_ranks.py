"""Scores by name and by slice: the same at any world size, after a kill, and in prediction."""

from __future__ import annotations

import csv
import json

import pytest
from conftest import predict, records

pytestmark = pytest.mark.parallel


@pytest.fixture
def spoken(workshop, tmp_path):
    """The workshop's validation rows, each in one of three languages, and a score of one's own."""
    with workshop.rows.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    path = tmp_path / "dev.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["text", "label", "language", "long"])
        writer.writeheader()
        for number, row in enumerate(rows):
            language = ("en", "en", "de", "")[number % 4]
            writer.writerow({**row, "language": language, "long": len(row["text"]) > 60})
    (tmp_path / "mine.py").write_text(
        "def missed(labels, predictions):\n    return -((labels == 1) & (predictions == 0)).mean()\n"
    )
    return path


@pytest.mark.long
def test_scores_by_name_and_by_slice_are_the_same_at_any_world_size_after_a_kill_and_predicted(
    workshop, spoken, tmp_path
):
    settings = {
        "mode": "exact",
        "num_shards": 6,
        "max_steps": 8,
        "save_steps": 4,
        "eval_steps": 4,
        "validation_file": spoken,
        "metrics": f"f1_macro,{tmp_path}/mine.py:missed",
        "metric_for_best_model": "roc_auc",
        "slice_by": "language,long",
        "max_gap": "accuracy=0.001",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    done = workshop.train(1, one, **settings)
    assert done.returncode == 1 and "--max_gap accuracy=0.001 is exceeded: accuracy by la" in done.output, done.output
    assert "best roc_auc 0." in done.output  # the model is left, as without a bound
    assert workshop.train(2, two, kill_at=6, **settings).returncode != 0
    done = workshop.train(3, two, **settings)
    assert done.returncode == 1, done.output
    for event in ("eval", "slices"):
        assert records(one, event) == records(two, event)
    whole = records(two, "eval")[-1]
    assert {"eval_f1_macro", "eval_missed", "eval_roc_auc", "eval_accuracy"} < set(whole)
    by_language, by_length = records(two, "slices")[-2:]
    assert set(by_language["scores"]) == {"en", "de", "(none)"} and set(by_length["scores"]) == {"False", "True"}
    counts = [(each["accuracy"], each["num_rows"]) for each in by_language["scores"].values()]
    assert sum(num_rows for _, num_rows in counts) == whole["eval_num_rows"] == 101
    mean = sum(accuracy * num_rows for accuracy, num_rows in counts) / 101
    assert mean == pytest.approx(whole["eval_accuracy"])
    gap = max(counts)[0] - min(counts)[0]
    assert by_language["gaps"]["accuracy"] == by_language["accuracy_gap_by_language"] == gap > 0

    again = workshop.train(2, two, **settings)
    assert again.returncode == 1 and "finished already" in again.output
    assert workshop.train(2, two, **{**settings, "max_gap": "accuracy=1"}).returncode == 0

    _is_predicted(two, spoken, tmp_path, settings["metrics"], whole, (by_language, by_length))


def _is_predicted(run, rows, tmp_path, metrics, whole, sliced):
    """Prediction by two ranks gives the scores of the run's last evaluation."""
    report = tmp_path / "report.json"
    flags = {"metrics": metrics, "slice_by": "language,long", "report": report}
    assert predict(2, run, rows, tmp_path / "out.csv", **flags).returncode == 0
    found = json.loads(report.read_text())
    assert found["scores"]["missed"] == whole["eval_missed"] and found["scores"]["f1_macro"] == whole["eval_f1_macro"]
    asked = set(found["scores"]) - {"confusion_matrix"}
    for each, trained in zip(found["slices"], sliced, strict=True):
        for value, scores in each["scores"].items():
            assert scores == {name: trained["scores"][value][name] for name in asked}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slice_by": "langage"}, "there is no column 'langage'"),
        ({"slice_by": "text"}, "--slice_by text: it has 101 different values"),
        ({"slice_by": "language", "max_gap": "roc_auc=0.1"}, "there is no score roc_auc"),
        ({"metrics": "f1_micros"}, "the nearest is f1_micro"),
        (
            {"validation_file": None, "slice_by": "language", "max_gap": "accuracy=1"},
            "there are no validation rows to comp",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_trained(workshop, spoken, tmp_path, changes, reason):
    done = workshop.train(0, tmp_path / "run", **{"validation_file": spoken, **changes})
    assert done.returncode == 2 and reason in done.output and "Traceback" not in done.output, done.output
    assert not list(tmp_path.glob("run/checkpoint-*"))
