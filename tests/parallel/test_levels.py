"""Levels in order: N ranks compute what one does, and predict levels with training's scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import digests, predict, records

pytestmark = pytest.mark.parallel
SETTINGS = {"task": "ordinal", "mode": "exact", "num_shards": 6, "max_steps": 24, "eval_steps": 12, "save_steps": 4}


@pytest.fixture(scope="module")
def levels(workshop, make_once) -> Path:
    """Rows whose label, from 1 to 4, is one more than the number of good words, at most 4."""

    def write(folder: Path) -> None:
        with workshop.rows.open(newline="") as read, (folder / "rows.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "label"))
            for row in csv.DictReader(read):
                good = sum(word in ("good", "great", "fine") for word in row["text"].split())
                writer.writerow((row["text"], 1 + min(3, good)))

    return make_once("levels", write) / "rows.csv"


def test_a_run_of_several_ranks_that_was_killed_is_that_of_one_and_predicts_with_its_scores(
    workshop, reference, levels, tmp_path
):
    settings = {**SETTINGS, "train_file": levels, "validation_file": levels, "learning_rate": 5e-3}
    one = reference(1, **settings)
    assert workshop.train(2, tmp_path / "run", kill_at=5, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 24) == digests(one, 24)
    first, last = found = records(tmp_path / "run", "eval")
    assert found == records(one, "eval") and last["eval_mae"] < first["eval_mae"]

    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    done = predict(2, tmp_path / "run", levels, output, report=report)
    assert done.returncode == 0 and "levels 1 < 2 < 3 < 4" in done.output, done.output
    rows = [json.loads(line) for line in output.open()]
    assert len(rows) == 101 and {row["label"] for row in rows} <= set("1234")
    assert all(abs(sum(row[f"probability_{level}"] for level in "1234") - 1) < 1e-5 for row in rows)
    scores = json.loads(report.read_text())["scores"]
    assert all(scores[name] == last[f"eval_{name}"] for name in ("loss", "accuracy", "mae", "quadratic_kappa"))
