"""Levels in order: N ranks compute what one does, and predict levels with training's scores."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from conftest import digests, predict, records
from tiny import WORDS

pytestmark = pytest.mark.parallel
GOOD = ("good", "great", "fine")
SETTINGS = {"task": "ordinal", "mode": "exact", "num_shards": 6, "max_steps": 48, "eval_steps": 24, "save_steps": 4}


def write_rows(path: Path, num_rows: int, seed: int) -> Path:
    """Write texts whose level, from 1 to 4, is one more than the number of good words in them."""
    draw = random.Random(seed)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for _ in range(num_rows):
            num_good = draw.randrange(4)
            words = draw.choices(GOOD, k=num_good)
            words += draw.choices([word for word in WORDS if word not in GOOD], k=draw.randint(2, 6))
            writer.writerow((" ".join(draw.sample(words, len(words))), 1 + num_good))
    return path


@pytest.fixture(scope="module")
def levels(make_once) -> Path:
    def write(folder: Path) -> None:
        write_rows(folder / "train.csv", 301, 1)
        write_rows(folder / "dev.csv", 101, 2)

    return make_once("levels", write)


@pytest.fixture(scope="module")
def settings(levels) -> dict[str, object]:
    files = {"train_file": levels / "train.csv", "validation_file": levels / "dev.csv"}
    return {**SETTINGS, **files, "learning_rate": 1e-2, "dropout": 0.0}


def test_two_ranks_learn_levels_with_the_bits_of_one_and_predict_with_its_scores(reference, settings, levels, tmp_path):
    one, two = reference(1, **settings), reference(2, **settings)
    assert digests(two, 48) == digests(one, 48) and records(two, "eval") == records(one, "eval")
    last = records(one, "eval")[-1]
    assert last["eval_quadratic_kappa"] > 0.5 and last["eval_mae"] < 0.7  # always the same level: 0, and 1 at best

    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    done = predict(0, two, levels / "dev.csv", output, report=report)
    assert done.returncode == 0 and "levels 1 < 2 < 3 < 4" in done.output, done.output
    rows = [json.loads(line) for line in output.open()]
    assert len(rows) == 101 and {row["label"] for row in rows} <= set("1234")
    assert all(abs(sum(row[f"probability_{level}"] for level in "1234") - 1) < 1e-5 for row in rows)
    scores = json.loads(report.read_text())["scores"]
    assert all(scores[name] == last[f"eval_{name}"] for name in ("loss", "accuracy", "mae", "quadratic_kappa"))


@pytest.mark.long
def test_a_run_of_two_ranks_that_was_killed_goes_on_on_three_as_if_nothing_had_happened(
    workshop, reference, settings, tmp_path
):
    one = reference(1, **settings)
    assert workshop.train(2, tmp_path / "run", kill_at=5, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 48) == digests(one, 48)
    assert records(tmp_path / "run", "eval") == records(one, "eval")
