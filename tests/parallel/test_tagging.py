"""Tags of words: N ranks compute what one does, also where windows of a row fall on different ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tagged
from conftest import digests, predict, records
from ringtune.train.task import tags

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def tagged_rows(make_once) -> Path:
    def write(folder: Path) -> None:
        tagged.write_words(folder / "train.jsonl", 301, 1, tags.BIOES)
        tagged.write_words(folder / "dev.jsonl", 61, 2, tags.BIOES)
        tagged.write_spans(folder / "dev_texts.jsonl", 61, 2)

    return make_once("tagged", write)


@pytest.fixture(scope="module")
def settings(tagged_rows) -> dict[str, object]:
    """Return the flags of a short run in exact mode."""
    files = {"train_file": tagged_rows / "train.jsonl", "validation_file": tagged_rows / "dev.jsonl"}
    return {**files, "mode": "exact", "num_shards": 6, "max_steps": 8, "eval_steps": 4, "save_steps": 2}


def test_parameters_and_every_score_are_those_of_one_rank_also_after_a_kill(workshop, reference, settings, tmp_path):
    """The first evaluation is of two ranks, the second of three."""
    one = reference(1, **settings)
    found = records(one, "eval")
    assert [each["eval_num_rows"] for each in found] == [61, 61]
    assert {"eval_loss", "eval_accuracy", "eval_precision", "eval_recall", "eval_f1"} < set(found[0])
    assert workshop.train(2, tmp_path / "run", kill_at=5, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output
    assert digests(tmp_path / "run", 8) == digests(one, 8) and records(tmp_path / "run", "eval") == found


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_every_score_is_that_of_one_rank(reference, settings, size):
    one, many = reference(1, **settings), reference(size, **settings)
    assert digests(many, 8) == digests(one, 8) and records(many, "eval") == records(one, "eval")


@pytest.fixture(scope="module")
def learned(workshop, reference, settings) -> Path:
    """Return a run of two ranks that has learnt the rule of the rows."""
    more = {"mode": "fast", "num_shards": None, "max_steps": 60, "learning_rate": 5e-3, "dropout": 0.0}
    return reference(2, **{**settings, **more, "eval_steps": 60, "save_steps": None, "logging_steps": 20})


def test_two_ranks_learn_entities(reference, settings, learned):
    """Always answering O finds none, and a model of a few steps hardly any."""
    untrained = records(reference(1, **settings), "eval")[0]["eval_f1"]
    f1 = records(learned, "eval")[-1]["eval_f1"]
    assert untrained < 0.3 and f1 > 0.6
    config = json.loads((learned / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(config["id2label"].values()) == ["O", "B-MOOD", "I-MOOD", "B-THING", "I-THING"]


def test_predictions_are_the_same_bytes_at_any_number_of_ranks_and_after_a_kill(learned, tagged_rows, tmp_path):
    """Lists of words give tags of the training rows' scheme, texts their entities; both have training's scores."""
    rows = tagged_rows / "dev.jsonl"
    many = tmp_path / "many.jsonl"
    many.write_text(rows.read_text() * 10)  # two chunks
    expected = ""
    for size in (1, 3):
        output = tmp_path / f"{size}.jsonl"
        flags = {"report": tmp_path / "report.json", "keep_columns": "tokens"}
        if size == 3:
            assert predict(2, learned, many, output, fault=("kill_at", "part-*"), **flags).returncode != 0
        done = predict(size, learned, many, output, **flags)
        assert done.returncode == 0, done.output
        expected = expected or output.read_text()
        assert output.read_text() == expected
    first = [json.loads(line) for line in expected.splitlines()]
    assert len(first) == 61 * 10 and all(len(row["tags"]) == len(row["tokens"]) for row in first)
    assert {tag[0] for row in first for tag in row["tags"]} == set("OBIES")
    report = json.loads((tmp_path / "report.json").read_text())["scores"]
    evaluation = records(learned, "eval")[-1]
    for name in ("accuracy", "precision", "recall", "f1"):
        assert report[name] == evaluation[f"eval_{name}"]
    assert set(report["entities"]) == {"MOOD", "THING"}


def test_texts_give_entities_with_the_scores_of_words(learned, tagged_rows, tmp_path):
    texts, output = tagged_rows / "dev_texts.jsonl", tmp_path / "texts.csv"
    flags = {"text_column_names": "text", "label_column_name": "entities", "report": tmp_path / "report.json"}
    done = predict(1, learned, texts, output, **flags)
    assert done.returncode == 0 and "entities" in output.read_text().splitlines()[0], done.output
    evaluation = records(learned, "eval")[-1]
    report = json.loads((tmp_path / "report.json").read_text())["scores"]
    for name in ("loss", "accuracy", "precision", "recall", "f1"):
        assert report[name] == evaluation[f"eval_{name}"]


def test_a_broken_row_ends_the_job_with_its_line_and_code_2(workshop, tagged_rows, tmp_path):
    bad = tmp_path / "bad.conll"
    bad.write_text("the O\nfilm B-THING\n\nodd\n")
    done = workshop.train(2, tmp_path / "run", train_file=bad, validation_file=None)
    assert done.returncode == 2 and "Traceback" not in done.output
    assert f"{bad}:4: line 4 has 1 columns, the first one 2" in done.output
