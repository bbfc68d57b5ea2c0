"""A run that goes on from an earlier one: N ranks compute what one does, also after a kill."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import labelled
import pytest
import tagged
import torch
from conftest import curve, digests, predict, records
from preparing import train
from ringtune.train.predict import predict as predict_rows
from ringtune.train.task import tags
from safetensors.torch import load_file
from tiny import WORDS
from usage import usage_error

pytestmark = pytest.mark.parallel


def write(path: Path, num_rows: int, seed: int, classes: tuple[str, ...]) -> Path:
    """Write random texts with random classes."""
    draw = random.Random(seed)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for _ in range(num_rows):
            writer.writerow((" ".join(draw.choices(WORDS, k=draw.randint(2, 24))), draw.choice(classes)))
    return path


@pytest.fixture(scope="module")
def old(reference) -> Path:
    """Return a run of the classes down and up."""
    return reference(1, mode="exact", max_steps=20)


@pytest.fixture(scope="module")
def settings(make_once, old) -> dict[str, object]:
    """Return the flags of a run that learns two classes more, from its own rows, predicted ones and earlier ones."""

    def fill(folder: Path) -> None:
        write(folder / "new.csv", 60, 3, ("odd", "cold"))
        write(folder / "predicted.csv", 31, 4, ("up", "odd"))

    rows = make_once("keep-learning", fill)
    taken_over = {"model_name_or_path": None, "max_seq_length": None}
    predicted = {"pseudo_file": rows / "predicted.csv", "pseudo_weight": 0.3}
    earlier = {"init_from": old, "replay": f"{old}=0.2", "keep_close": 0.1, "keep_answers": 0.5}
    earlier |= {"class_weights": "auto"}
    steps = {"mode": "exact", "num_shards": 6, "max_steps": 14, "save_steps": 2, "dropout": 0.1}
    return {"train_file": rows / "new.csv", "validation_file": None, **taken_over, **predicted, **earlier, **steps}


def test_all_of_it_is_exact_at_two_ranks_and_after_a_kill_within_an_epoch(workshop, reference, settings, old, tmp_path):
    one = reference(1, **settings)
    assert workshop.train(2, tmp_path / "run", kill_at=11, **settings).returncode != 0
    done = workshop.train(1, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 14) == digests(one, 14)
    assert records(tmp_path / "run", "train") == records(one, "train")
    for line in (
        f"head: 2 classes of {old} kept, 2 new: cold, odd",
        f"{workshop.rows}: text: column text; label: column label; --replay draws from 101 rows",
        "31 rows more to train on, each counts 0.3 in the loss",
        "91 training rows, 10 steps per epoch, 14 steps of 12 rows, 2 of them replayed, in 6 shards",
    ):
        assert line in done.output, done.output
    rows = [sorted(each["rows"]) for each in records(one, "rows")]
    assert rows == [sorted(each["rows"]) for each in records(tmp_path / "run", "rows")]
    # 60 new rows and 31 predicted ones: ten steps an epoch, the last one of a single new row.
    assert [sum(row >= 91 for row in each) for each in rows] == [2] * 9 + [1] + [2] * 4
    assert sorted(row for each in rows[:10] for row in each if row < 91) == list(range(91))
    replayed = [row for each in rows for row in each if row >= 91]
    assert len(set(replayed)) == len(replayed) and max(replayed) < 91 + 101


def test_an_earlier_run_that_is_not_as_it_was_written_ends_the_job_with_code_2(workshop, settings, old, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for name in (*json.loads((old / "manifest.json").read_text()), "manifest.json"):
        (folder / name).write_bytes((old / name).read_bytes())
    (folder / "config.yaml").write_text((old / "config.yaml").read_text().replace("rows.csv", "dev.csv"))
    line = usage_error(workshop.train(0, tmp_path / "run", **{**settings, "replay": f"{folder}=0.2"}))
    assert f"--replay {folder}: config.yaml" in line, line
    assert "rows_digest" in json.loads((old / "finished.json").read_text())


def test_sure_predictions_are_written_with_their_texts_and_trained_on(old, workshop, tmp_path):
    output, everything = tmp_path / "sure.jsonl", list(predict_rows(old, workshop.dev, keep_columns="text"))
    least = sorted(max(row["probability_down"], row["probability_up"]) for row in everything)[len(everything) // 2]
    done = predict(0, old, workshop.dev, output, min_confidence=least, report=tmp_path / "report.json")
    assert done.returncode == 0, done.output
    expected = [row for row in everything if max(row["probability_down"], row["probability_up"]) >= least]
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected
    assert list(predict_rows(old, workshop.dev, min_confidence=least)) == expected
    last = [line for line in done.output.splitlines() if "rows/s" in line][-1]
    share = len(expected) / 37
    assert f"{len(expected)} with a confidence of at least" in last and f"(coverage {share:.4f})" in last, last
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["num_rows"], report["num_written"], report["coverage"]) == (37, len(expected), share)
    found = train(tmp_path, workshop.rows, pseudo_file=str(output))
    assert found.parts == {"train": 101, "pseudo": len(expected)}
    labels = [found.task.classes[number] for number in found.train.feature_columns["labels"][101:]]
    assert labels == [row["label"] for row in expected]


# Longer


@pytest.mark.long
@pytest.mark.parametrize("way", ["plain", "replay", "keep_close", "keep_answers", "pseudo_file", "balanced"])
def test_each_of_it_is_the_same_at_one_and_two_ranks_in_fast_mode_too(reference, settings, old, way):
    parts = ("replay", "keep_close", "keep_answers", "pseudo_file", "pseudo_weight", "class_weights")
    own = {name: value for name, value in settings.items() if name == way or (way == "balanced" and name == "replay")}
    flags = {**{name: value for name, value in settings.items() if name not in parts}, **own}
    flags |= {"mode": "fast", "max_steps": 6, "balanced_sampling": "true" if way == "balanced" else None}
    one, two = reference(1, **flags), reference(2, **flags)
    assert curve(one) == pytest.approx(curve(two), abs=1e-4)


@pytest.mark.long
def test_parameters_stay_closer_with_a_penalty_and_accumulation_changes_nothing(reference, settings, old):
    start = load_file(old / "model.safetensors")
    distances = {}
    for strength in (0.0, 1.0):
        flags = {**settings, "keep_close": strength, "mode": "fast", "num_shards": None, "dropout": 0.0}
        run = reference(1, **flags)
        accumulated = reference(1, **flags, gradient_accumulation_steps=3)
        assert curve(run) == pytest.approx(curve(accumulated), abs=1e-4)
        end = load_file(run / "model.safetensors")
        distances[strength] = sum(float((end[name][: len(each)] - each).square().sum()) for name, each in start.items())
    assert distances[1.0] < 0.8 * distances[0.0]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tags", "several labels"])
def test_other_kinds_go_on_bitwise_at_two_ranks(reference, make_once, kind):
    def fill(folder: Path) -> None:
        tagged.write_words(folder / "old.tags.jsonl", 61, 1)
        text = tagged.write_words(folder / "new.tags.jsonl", 61, 2, tags.BIOES).read_text()
        (folder / "new.tags.jsonl").write_text(text.replace("-MOOD", "-TONE"))
        labelled.write_lists(folder / "old.labels.jsonl", 61, 1)
        text = labelled.write_lists(folder / "new.labels.jsonl", 61, 2).read_text()
        (folder / "new.labels.jsonl").write_text(text.replace("denial", "doubt"))

    rows = make_once("keep-learning-kinds", fill)
    name = {"tags": "tags", "several labels": "labels"}[kind]
    plain = {"validation_file": None, "mode": "exact", "num_shards": 2, "max_steps": 4}
    before = reference(1, **plain, train_file=rows / f"old.{name}.jsonl")
    flags = {**plain, "train_file": rows / f"new.{name}.jsonl", "model_name_or_path": None, "max_seq_length": None}
    flags |= {"init_from": before, "replay": f"{before}=0.3", "keep_close": 0.1, "keep_answers": 1.0}
    one, two = reference(1, **flags), reference(2, **flags)
    assert digests(one, 4) == digests(two, 4)
    old_names, names = (list(json.loads((each / "task.json").read_text())["classes"]) for each in (before, one))
    assert names[: len(old_names)] == old_names and len(names) > len(old_names)
    assert torch.isfinite(load_file(one / "model.safetensors")["classifier.weight"]).all()
