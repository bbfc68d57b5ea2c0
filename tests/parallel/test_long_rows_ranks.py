"""Rows in windows on ranks: what stands behind the first window is learnt, and neither ranks nor kills show."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from conftest import digests, predict, records
from tiny import WORDS

pytestmark = pytest.mark.parallel
WINDOWS = {"max_seq_length": 16, "window_stride": 4, "window_pooling": "max"}
EXACT = {"mode": "exact", "num_shards": 6, "max_steps": 8, "save_steps": 4, "eval_steps": 4}
TELLING, OTHERS = ("warm", "odd"), [word for word in WORDS if word not in ("warm", "odd")]


def write_rows(path: Path, num_rows: int, seed: int) -> Path:
    """Write rows of 2 to 60 words whose label is one word, in most of them far behind the sixteenth token."""
    draw = random.Random(seed)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for number in range(num_rows):
            words = draw.choices(OTHERS, k=draw.randint(1, 59))
            words.insert(draw.randint(len(words) // 2, len(words)), TELLING[number % 2])
            writer.writerow((" ".join(words), ("up", "down")[number % 2]))
    return path


@pytest.fixture(scope="session")
def files(make_once) -> dict[str, Path]:
    folder = make_once(
        "long_rows", lambda each: [write_rows(each / n, k, k) for n, k in (("r.csv", 320), ("d.csv", 90))]
    )
    return {"train_file": folder / "r.csv", "validation_file": folder / "d.csv"}


@pytest.fixture(scope="session")
def learnt(reference, files) -> Path:
    """A run of two ranks that has learnt."""
    settings = {**WINDOWS, "max_steps": 100, "learning_rate": 3e-3, "global_batch_size": 32, "logging_steps": 50}
    return reference(2, **files, **settings)


def test_two_ranks_learn_what_stands_behind_the_first_window(learnt):
    found = records(learnt, "eval")[-1]["eval_accuracy"]
    print("accuracy", found, "of the more frequent class 0.5")
    assert found > 0.9
    assert json.loads((learnt / "task.json").read_text())["windows"] == {"stride": 4, "pooling": "max"}


@pytest.mark.long
def test_rows_that_are_cut_are_counted_and_learnt_worse(learnt, workshop, files, tmp_path):
    settings = {**files, "max_seq_length": 16, "max_steps": 100, "learning_rate": 3e-3, "global_batch_size": 32}
    done = workshop.train(1, tmp_path / "cut", **settings)
    assert done.returncode == 0 and "of 320 rows have more than 16 tokens and are cut" in done.output, done.output
    assert records(tmp_path / "cut", "eval")[-1]["eval_accuracy"] < 0.8


@pytest.mark.parametrize("sizes", [(1, 3), pytest.param((1, 2, 3), marks=pytest.mark.long)], ids=len)
def test_predictions_are_the_same_on_any_ranks_and_repeat_the_last_evaluation(learnt, files, tmp_path, sizes):
    last = {name.removeprefix("eval_"): value for name, value in records(learnt, "eval")[-1].items()}
    outputs = []
    for size in sizes:
        output, report = tmp_path / f"{size}.jsonl", tmp_path / f"{size}.json"
        done = predict(size, learnt, files["validation_file"], output, report=report)
        assert done.returncode == 0, done.output
        outputs.append(output.read_bytes())
        scores = json.loads(report.read_text())["scores"]
        assert scores["loss"] == last["loss"] and scores["accuracy"] == last["accuracy"]
    assert len(set(outputs)) == 1


@pytest.mark.long
def test_a_killed_prediction_is_the_same_bytes(learnt, tmp_path):
    rows = write_rows(tmp_path / "many.csv", 3000, 5)
    assert predict(2, learnt, rows, tmp_path / "whole.jsonl").returncode == 0
    done = predict(2, learnt, rows, tmp_path / "out.jsonl", fault=("kill_at", "part-*"))
    assert done.returncode != 0 and not (tmp_path / "out.jsonl").exists(), done.output
    assert predict(3, learnt, rows, tmp_path / "out.jsonl").returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_parameters_and_scores_are_bitwise_those_of_one_rank_and_a_kill_changes_none(
    reference, workshop, files, tmp_path, size
):
    whole, run = reference(1, **files, **WINDOWS, **EXACT), tmp_path / "run"
    assert workshop.train(size, run, kill_at=6, **files, **WINDOWS, **EXACT).returncode != 0
    assert digests(run, 4) == digests(whole, 4)
    assert workshop.train(3 - size or 2, run, **files, **WINDOWS, **EXACT).returncode == 0
    assert digests(run, 8) == digests(whole, 8)
    assert records(run, "eval") == records(whole, "eval") and len(records(run, "eval")) == 2


@pytest.mark.long
def test_in_fast_mode_the_mean_of_windows_has_the_curve_of_one_rank(reference, workshop, files, tmp_path):
    settings = {**files, **WINDOWS, "window_pooling": "mean", "dropout": 0, "max_steps": 6}
    one = records(reference(1, **settings), "train")
    assert workshop.train(2, tmp_path / "run", **settings, gradient_accumulation_steps=2).returncode == 0
    for mine, other in zip(one, records(tmp_path / "run", "train"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_stride_that_hardly_moves_on_is_refused(workshop, files, tmp_path):
    done = workshop.train(0, tmp_path / "run", **files, **{**WINDOWS, "window_stride": 8})
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    assert "--window_stride: windows that share 8 of 16 tokens hardly move on" in done.output
