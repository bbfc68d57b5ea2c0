"""A new task is one class: training, evaluation, checkpoints and prediction take it as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import digests, flag_words, ranks, records

pytestmark = pytest.mark.parallel
ORDINAL = str(Path(__file__).parents[1] / "ordinal.py")


@pytest.fixture(scope="module")
def levels(workshop, tmp_path_factory) -> Path:
    """Rows whose label is one of four levels: the number of good words, at most 3."""
    path = tmp_path_factory.mktemp("levels") / "rows.csv"
    with workshop.rows.open(newline="") as read, path.open("w", newline="") as write:
        writer = csv.writer(write)
        writer.writerow(("text", "label"))
        for row in csv.DictReader(read):
            writer.writerow(
                (row["text"], min(3, sum(word in ("good", "great", "fine") for word in row["text"].split())))
            )
    return path


def test_a_task_of_one_new_class_trains_resumes_and_predicts_like_any_other(workshop, levels, tmp_path):
    settings = {"train_file": levels, "validation_file": levels, "mode": "exact", "num_shards": 2, "save_steps": 6}
    for size in (1, 2):
        first = workshop.arguments(tmp_path / f"run{size}", **settings, max_steps=6)
        assert ranks(size, ORDINAL, "train", *first).returncode == 0
        done = ranks(3 - size, ORDINAL, "train", *workshop.arguments(tmp_path / f"run{size}", **settings))
        assert done.returncode == 0 and "label: column label, 4 levels" in done.output, done.output
    assert digests(tmp_path / "run1", 12) == digests(tmp_path / "run2", 12)
    evaluation = records(tmp_path / "run1", "eval")[-1]
    assert evaluation["eval_num_rows"] == 101 and evaluation["eval_mean_distance"] < 1.5

    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    flags = {"model_name_or_path": tmp_path / "run1", "input": levels, "output": output, "report": report}
    done = ranks(2, ORDINAL, "predict", *flag_words(flags))
    assert done.returncode == 0 and "levels 0 < 1 < 2 < 3" in done.output, done.output
    found = [json.loads(line)["level"] for line in output.read_text().splitlines()]
    assert len(found) == 101 and set(found) <= set("0123")
    scores = json.loads(report.read_text())["scores"]
    assert scores["mean_distance"] == evaluation["eval_mean_distance"] and scores["loss"] == evaluation["eval_loss"]


def test_a_task_of_another_version_is_refused_by_its_kind(workshop, levels, tmp_path):
    settings = {"train_file": levels, "validation_file": None, "max_steps": 2}
    assert ranks(1, ORDINAL, "train", *workshop.arguments(tmp_path / "run", **settings)).returncode == 0
    flags = {"model_name_or_path": tmp_path / "run", "input": levels, "output": tmp_path / "out.jsonl"}
    done = ranks(1, "-m", "ringtune.train.predict.cli", *flag_words(flags))
    assert done.returncode == 2 and "no kind of task named 'in_order'" in done.output, done.output
    assert "Traceback" not in done.output
