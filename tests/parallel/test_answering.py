"""Answers to questions: N ranks compute what one does, also where windows of a row fall on different ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import questions
from conftest import digests, predict, records
from ringtune.train.predict import predict as predict_here

pytestmark = pytest.mark.parallel
STEPS = 40


@pytest.fixture(scope="module")
def question_rows(make_once) -> Path:
    def write(folder: Path) -> None:
        questions.write_rows(folder / "train.jsonl", 301, 1, unanswered=True)
        questions.write_squad(folder / "dev.json", 540, 2, unanswered=True)  # two chunks of a prediction
        unanswered = [
            {name: row[name] for name in ("id", "question", "context")} for row in questions.rows(9, 3, unanswered=True)
        ]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unanswered))

    return make_once("questions", write)


@pytest.fixture(scope="module")
def settings(question_rows) -> dict[str, object]:
    """Return the flags of a run in exact mode that learns the rule of the rows."""
    files = {"train_file": "train.jsonl", "validation_file": "dev.json", "test_file": "test.jsonl"}
    return {
        **{name: question_rows / file for name, file in files.items()},
        "do_predict": "true",
        "mode": "exact",
        "num_shards": 6,
        "max_steps": STEPS,
        "eval_steps": STEPS // 2,
        "save_steps": 10,
        "logging_steps": 10,
        "global_batch_size": 24,
        "learning_rate": 5e-3,
        "dropout": 0.0,
    }


def test_parameters_and_every_score_are_those_of_one_rank_also_after_a_kill(workshop, reference, settings, tmp_path):
    """The first evaluation is of two ranks, the second of three. Never answering is right for a third of the rows."""
    one = reference(1, **settings)
    found = records(one, "eval")
    assert [each["eval_num_rows"] for each in found] == [540, 540]
    assert found[-1]["eval_has_answer_exact_match"] > 0.6 and found[-1]["eval_no_answer_f1"] > 0.6
    assert found[-1]["eval_exact_match"] <= found[-1]["eval_f1"] <= found[-1]["eval_best_f1"]
    assert workshop.train(2, tmp_path / "run", kill_at=25, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output
    assert digests(tmp_path / "run", STEPS) == digests(one, STEPS) and records(tmp_path / "run", "eval") == found
    predicted = (tmp_path / "run" / "predict_results.txt").read_text()
    assert predicted == (one / "predict_results.txt").read_text() and len(predicted.splitlines()) == 10


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_every_score_is_that_of_one_rank(reference, settings, size):
    one, many = reference(1, **settings), reference(size, **settings)
    assert digests(many, STEPS) == digests(one, STEPS) and records(many, "eval") == records(one, "eval")


@pytest.mark.long
def test_two_ranks_learn_in_fast_mode_where_each_question_has_an_answer(reference, question_rows, settings, tmp_path):
    train = questions.write_squad(tmp_path / "train.json", 301, 1, indent=1)
    dev = questions.write_rows(tmp_path / "dev.jsonl", 61, 2)
    run = reference(2, **{**settings, "mode": "fast", "num_shards": None, "train_file": train, "validation_file": dev})
    found = records(run, "eval")[-1]
    assert found["eval_exact_match"] > 0.7 and "eval_no_answer_f1" not in found and "eval_best_f1" not in found


@pytest.mark.long
def test_predictions_of_three_ranks_after_a_kill_are_those_of_one_and_have_training_scores(
    reference, settings, question_rows, tmp_path
):
    """Of more rows than a chunk, evaluation forms other batches: a loss may differ in its last digit."""
    model, rows, output = reference(1, **settings), question_rows / "dev.json", tmp_path / "out.jsonl"
    flags = {"keep_columns": "context,answers", "top_k": 3, "report": tmp_path / "report.json"}
    assert predict(2, model, rows, output, fault=("kill_at", "part-*"), **flags).returncode != 0
    done = predict(3, model, rows, output, **flags)
    assert done.returncode == 0, done.output
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert found == list(predict_here(str(model), rows, keep_columns="context,answers", top_k=3))
    assert len(found) == 540
    for row in found:
        assert row["answer"] == row["context"][row.get("start", 0) : row.get("end", 0)]
        assert len(row["n_best"]) == 3 and row["n_best"][0]["probability"] >= row["n_best"][1]["probability"]
    right = sum(row["answer"] == next((each["text"] for each in row["answers"]), "") for row in found)
    last = records(model, "eval")[-1]
    assert right == round(last["eval_exact_match"] * 540) and not all(row["answer"] for row in found)
    scores = json.loads((tmp_path / "report.json").read_text())["scores"]
    names = {name.removeprefix("eval_"): value for name, value in last.items() if name.startswith("eval_")}
    assert scores == pytest.approx(names, rel=1e-6)


@pytest.mark.long
def test_a_prediction_of_one_chunk_has_the_scores_of_training_to_the_last_digit(reference, settings, tmp_path):
    dev = questions.write_rows(tmp_path / "dev.jsonl", 61, 5, unanswered=True)
    model = reference(1, **{**settings, "validation_file": dev, "max_steps": 10, "eval_steps": 10})
    for size in (1, 2, 3):
        report = tmp_path / f"{size}.json"
        done = predict(size, model, dev, tmp_path / f"{size}.csv", report=report)
        assert done.returncode == 0, done.output
        last = {name: value for name, value in records(model, "eval")[-1].items() if name.startswith("eval_")}
        assert {f"eval_{name}": value for name, value in json.loads(report.read_text())["scores"].items()} == last
        assert (tmp_path / f"{size}.csv").read_text() == (tmp_path / "1.csv").read_text()


@pytest.mark.long
def test_a_broken_row_ends_the_job_with_its_id_and_code_2(workshop, tmp_path):
    bad = questions.write_squad(tmp_path / "bad.json", 6, 1, unanswered=True)
    content = json.loads(bad.read_text())
    content["data"][0]["paragraphs"][1]["qas"][0]["answers"][0]["answer_start"] += 1
    bad.write_text(json.dumps(content))
    done = workshop.train(2, tmp_path / "run", train_file=bad, validation_file=None)
    assert done.returncode == 2 and "Traceback" not in done.output
    assert f"{bad}: row 2: question 'q1-1': the answer" in done.output, done.output
