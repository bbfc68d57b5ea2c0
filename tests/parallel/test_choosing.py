"""Choices of rows: N ranks compute what one does, also where a row lacks some of its choices."""

from __future__ import annotations

import json
from pathlib import Path

import choosing
import pytest
import torch
from conftest import digests, predict, records
from transformers import AutoModelForMultipleChoice, AutoTokenizer

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def chosen_rows(make_once) -> Path:
    def write(folder: Path) -> None:
        choosing.write_lists(folder / "train.jsonl", 301, 1, short=True)
        choosing.write_lists(folder / "dev.jsonl", 61, 2, short=True)
        choosing.write_swag(folder / "dev.csv", 61, 2)

    return make_once("chosen", write)


@pytest.fixture(scope="module")
def settings(chosen_rows) -> dict[str, object]:
    """Return the flags of a run in exact mode that learns the rule of the rows."""
    files = {"train_file": chosen_rows / "train.jsonl", "validation_file": chosen_rows / "dev.jsonl"}
    more = {"max_seq_length": 24, "label_smoothing_factor": 0.1, "learning_rate": 5e-3, "dropout": 0.05}
    return {**files, **more, "mode": "exact", "num_shards": 6, "max_steps": 32, "eval_steps": 4, "save_steps": 4}


@pytest.fixture(scope="module")
def learned(workshop, settings, make_once) -> Path:
    """Return a run of two ranks that was killed behind its first evaluation, and went on on three."""

    def train(folder: Path) -> None:
        assert workshop.train(2, folder / "run", kill_at=5, **settings).returncode != 0
        done = workshop.train(3, folder / "run", **settings)
        assert done.returncode == 0 and "going on from" in done.output, done.output

    return make_once("learned-to-choose", train) / "run"


def test_parameters_and_every_score_are_those_of_one_rank_also_after_a_kill(reference, settings, learned):
    """The first evaluation is of two ranks, the others are of three."""
    one = reference(1, **settings)
    found = records(one, "eval")
    assert [each["eval_num_rows"] for each in found] == [61] * 8 and {"eval_loss", "eval_accuracy"} < set(found[0])
    assert digests(learned, 32) == digests(one, 32) and records(learned, "eval") == found


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_every_score_is_that_of_one_rank(reference, settings, size):
    one, many = reference(1, **settings), reference(size, **settings)
    assert digests(many, 32) == digests(one, 32) and records(many, "eval") == records(one, "eval")


def test_ranks_learn_to_choose(learned):
    """To choose at random is right in a quarter of the rows, or a few more where choices are missing."""
    first, *_, last = (each["eval_accuracy"] for each in records(learned, "eval"))
    assert first < 0.6 and last > 0.9
    config = json.loads((learned / "config.json").read_text())
    assert config["architectures"] == ["BertForMultipleChoice"]


def test_predictions_are_the_same_bytes_at_any_number_of_ranks_and_after_a_kill(learned, chosen_rows, tmp_path):
    many = tmp_path / "many.jsonl"
    many.write_text((chosen_rows / "dev.jsonl").read_text() * 10)  # two chunks
    outputs = [tmp_path / "one.jsonl", tmp_path / "three.jsonl"]
    flags = {"keep_columns": "choices", "report": tmp_path / "report.json"}
    assert predict(2, learned, many, outputs[1], fault=("kill_at", "part-*"), **flags).returncode != 0
    for size, output in zip((0, 3), outputs, strict=True):
        done = predict(size, learned, many, output, **flags)
        assert done.returncode == 0, done.output
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    found = [json.loads(line) for line in outputs[0].open()]
    assert len(found) == 61 * 10 and all(row["choices"][row["label"]] == row["choice"] for row in found)
    accuracy = json.loads((tmp_path / "report.json").read_text())["scores"]["accuracy"]
    assert accuracy == records(learned, "eval")[-1]["eval_accuracy"]


def test_the_final_folder_answers_the_same_elsewhere_and_has_the_scores_of_training(learned, chosen_rows, tmp_path):
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    flags = {"keep_columns": "article,question,choices", "report": report}
    done = predict(0, learned, chosen_rows / "dev.jsonl", output, **flags)
    assert done.returncode == 0 and "one of 4 choices" in done.output, done.output
    evaluation = records(learned, "eval")[-1]
    for name in ("loss", "accuracy"):
        assert json.loads(report.read_text())["scores"][name] == evaluation[f"eval_{name}"]
    model, tokenizer = (each.from_pretrained(learned) for each in (AutoModelForMultipleChoice, AutoTokenizer))
    for row in map(json.loads, output.open()):
        there = [number for number, each in enumerate(row["choices"]) if each is not None]
        endings = [f"{row['question']} {row['choices'][number]}" for number in there]
        pairs = [row["article"]] * len(there), endings
        encoded = tokenizer(*pairs, padding=True, truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            shares = model.eval()(**{name: each[None] for name, each in encoded.items()}).logits.softmax(dim=1)[0]
        given = torch.tensor([row[f"probability_{number}"] for number in there])
        torch.testing.assert_close(given, shares, rtol=1e-3, atol=1e-5)
        assert row["label"] == there[int(shares.argmax())]


def test_a_broken_row_ends_the_job_with_its_line_and_code_2(workshop, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("sent1,sent2,ending0,ending1,label\na,b,c,d,0\na,b,c,d,2\n")
    done = workshop.train(0, tmp_path / "run", train_file=bad, validation_file=None)
    assert done.returncode == 2 and "Traceback" not in done.output
    assert f"{bad}:3: the label '2' in column 'label' names none of its 2 choices" in done.output
