"""Rows with several labels on ranks: what is learnt, and that neither ranks nor kills show in it."""

from __future__ import annotations

import json
from pathlib import Path

import labelled
import numpy as np
import pytest
from conftest import digests, predict, records
from sklearn.metrics import f1_score

pytestmark = pytest.mark.parallel
NAMES = ("blame", "denial", "praise")
FINAL = ("task.json", "config.json", "model.safetensors")
EXACT = {"mode": "exact", "num_shards": 6, "max_steps": 10, "save_steps": 5, "eval_steps": 5, "class_weights": "auto"}


@pytest.fixture(scope="session")
def files(make_once) -> dict[str, Path]:
    def write(folder):
        labelled.write_lists(folder / "rows.jsonl", 400, 1)
        labelled.write_lists(folder / "dev.jsonl", 151, 2)

    folder = make_once("labelled", write)
    return {"train_file": folder / "rows.jsonl", "validation_file": folder / "dev.jsonl"}


@pytest.fixture(scope="session")
def learnt(reference, files) -> Path:
    """A run of two ranks that has learnt."""
    return reference(2, **files, max_steps=120, learning_rate=3e-3, global_batch_size=32, logging_steps=40)


def frequent_f1(path: Path) -> float:
    """Return the best micro F1 of answers that give all rows the most frequent labels."""
    true = np.array([[name in json.loads(line)["label"] for name in NAMES] for line in path.read_text().splitlines()])
    order = np.argsort(-true.sum(axis=0))
    answers = [np.isin(np.arange(len(NAMES)), order[: number + 1]) for number in range(len(NAMES))]
    return max(f1_score(true, np.broadcast_to(each, true.shape), average="micro") for each in answers)


def test_two_ranks_learn_several_labels(learnt, files):
    scores = records(learnt, "eval")[-1]
    baseline = frequent_f1(files["validation_file"])
    print("micro F1", scores["eval_f1_micro"], "of the most frequent labels", baseline)
    assert scores["eval_f1_micro"] > baseline + 0.25
    task = json.loads((learnt / "task.json").read_text())
    assert task["kind"] == "multi_label" and len(task["thresholds"]) == 3
    assert task == json.loads((learnt / "checkpoint-120" / "task.fitted.json").read_text())
    assert json.loads((learnt / "checkpoint-120" / "task.json").read_text())["thresholds"] is None


@pytest.mark.parametrize("sizes", [(1, 3), pytest.param((1, 2, 3), marks=pytest.mark.long)], ids=len)
def test_predictions_are_the_same_on_any_ranks_and_repeat_the_last_evaluation(learnt, files, tmp_path, sizes):
    last = {name.removeprefix("eval_"): value for name, value in records(learnt, "eval")[-1].items()}
    outputs = []
    for size in sizes:
        output, report = tmp_path / f"{size}.jsonl", tmp_path / f"{size}.json"
        done = predict(size, learnt, files["validation_file"], output, report=report)
        assert done.returncode == 0 and "precision" in done.output, done.output
        outputs.append(output.read_bytes())
        scores = json.loads(report.read_text())["scores"]
        assert {name: last[name] for name in scores if name in last} == {
            name: value for name, value in scores.items() if name != "labels"
        }
        assert [each["label"] for each in scores["labels"]] == list(NAMES)
    assert len(set(outputs)) == 1


@pytest.mark.long
def test_a_killed_prediction_of_several_labels_is_the_same_bytes(learnt, tmp_path):
    rows = labelled.write_columns(tmp_path / "many.csv", 5000, 4)
    flags = {"label_column_name": "praise,blame,denial", "keep_columns": "text"}
    for name in ("whole.csv", "whole.parquet"):
        assert predict(2, learnt, rows, tmp_path / name, **flags).returncode == 0
    done = predict(2, learnt, rows, tmp_path / "out.csv", fault=("kill_at", "part-*"), **flags)
    assert done.returncode != 0 and not (tmp_path / "out.csv").exists(), done.output
    done = predict(3, learnt, rows, tmp_path / "out.csv", **flags)
    assert done.returncode == 0 and "f1_micro" in done.output, done.output
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_threshold_of_the_user_and_the_best_labels_are_written(learnt, files, tmp_path):
    done = predict(0, learnt, files["validation_file"], tmp_path / "out.jsonl", threshold=0.01, top_k=1)
    assert done.returncode == 0 and "each from a probability of 0.01 on" in done.output, done.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert max(len(row["labels"]) for row in rows) == 3 and list(rows[0]) == ["labels", "label", "probability"]


def test_the_final_folder_is_a_transformers_pipeline_with_the_same_probabilities(learnt, files, tmp_path):
    from transformers import pipeline

    texts = [json.loads(line)["text"] for line in files["validation_file"].read_text().splitlines()]
    for model in (learnt, tmp_path / "elsewhere"):
        classify = pipeline("text-classification", str(model), device="cpu", top_k=None, function_to_apply="sigmoid")
        expected = [{each["label"]: each["score"] for each in row} for row in classify(texts)]
        done = predict(0, model, files["validation_file"], tmp_path / "out.jsonl", overwrite_output="true")
        assert done.returncode == 0, done.output
        for line, scores in zip((tmp_path / "out.jsonl").read_text().splitlines(), expected, strict=True):
            row = json.loads(line)
            assert {name: row[f"probability_{name}"] for name in NAMES} == pytest.approx(scores, abs=2e-5)
        if model == learnt:  # a model of another program: no task.json, no thresholds
            classify.model.save_pretrained(tmp_path / "elsewhere")
            classify.tokenizer.save_pretrained(tmp_path / "elsewhere")
    assert "each from a probability of 0.5 on" in done.output and "f1_micro" in done.output


@pytest.fixture(scope="session")
def exact(reference, files):
    return lambda size: reference(size, **files, **EXACT)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_parameters_thresholds_and_scores_are_bitwise_those_of_one_rank(exact, size):
    one, many = exact(1), exact(size)
    assert digests(one, 10) == digests(many, 10)
    assert records(one, "eval") == records(many, "eval") and len(records(one, "eval")) == 2
    for name in ("task.json", "checkpoint-5/task.fitted.json", "checkpoint-10/task.fitted.json"):
        assert (one / name).read_bytes() == (many / name).read_bytes()


@pytest.mark.long
def test_in_fast_mode_scores_and_thresholds_of_one_model_are_those_of_one_rank(learnt, workshop, files, tmp_path):
    """The learning rate is next to nothing: the model stays, and its evaluation is what is compared."""
    settings = {**files, "model_name_or_path": learnt, "max_steps": 1, "learning_rate": 1e-30, "weight_decay": 0}
    for size in (1, 2, 3):
        assert workshop.train(size, tmp_path / f"run{size}", **settings).returncode == 0
    one, *others = [records(tmp_path / f"run{size}", "eval")[-1] for size in (1, 2, 3)]
    assert others == [one, one]
    assert len({(tmp_path / f"run{size}" / "task.json").read_bytes() for size in (1, 2, 3)}) == 1


def test_a_kill_changes_neither_parameters_nor_thresholds(workshop, exact, files, tmp_path):
    """Killed after a step, and when a checkpoint that is not evaluated has its thresholds still to get."""
    whole, run = exact(1), tmp_path / "run"
    assert workshop.train(2, run, kill_at=7, **files, **EXACT).returncode != 0
    (run / "checkpoint-5" / "task.fitted.json").unlink()  # as of a kill before it was written
    assert workshop.train(1, run, **files, **EXACT).returncode == 0
    assert digests(run, 10) == digests(whole, 10)
    assert records(run, "eval") == records(whole, "eval")
    for name in (*FINAL, "checkpoint-5/task.fitted.json", "checkpoint-10/task.fitted.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.long
def test_the_best_model_has_its_own_thresholds_also_after_a_kill(workshop, reference, files, tmp_path):
    """The highest loss counts as best: the first evaluation's, which a start after the kill has not made itself."""
    settings = {**files, **EXACT, "load_best_model_at_end": "true", "metric_for_best_model": "loss"}
    settings |= {"greater_is_better": "true", "class_weights": None}
    whole, run = reference(1, **settings), tmp_path / "run"
    assert workshop.train(1, run, kill_at=8, **{**settings, "save_steps": 1}).returncode != 0
    done = workshop.train(2, run, **{**settings, "save_steps": 1})
    assert done.returncode == 0 and "going on from" in done.output and "at step 5" in done.output, done.output
    for name in FINAL:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert (run / "task.json").read_bytes() == (run / "checkpoint-5" / "task.fitted.json").read_bytes()
    assert (run / "task.json").read_bytes() != (run / "checkpoint-10" / "task.fitted.json").read_bytes()


def test_without_validation_rows_a_label_is_given_from_a_half_on_and_that_is_reported(workshop, files, tmp_path):
    settings = {**files, "validation_file": None, "max_steps": 2, "test_file": files["validation_file"]}
    done = workshop.train(0, tmp_path / "run", do_predict="true", **settings)
    assert done.returncode == 0 and "each from a probability of 0.5 on" in done.output, done.output
    assert json.loads((tmp_path / "run" / "task.json").read_text())["thresholds"] is None
    lines = (tmp_path / "run" / "predict_results.txt").read_text().splitlines()
    assert lines[0] == "index\tprediction" and isinstance(json.loads(lines[1].split("\t")[1]), list)


@pytest.mark.long
def test_a_threshold_of_the_user_is_not_fitted_and_other_tasks_refuse_it(workshop, files, tmp_path):
    done = workshop.train(0, tmp_path / "run", **files, max_steps=2, threshold=0.25)
    assert done.returncode == 0 and "each from a probability of 0.25 on" in done.output, done.output
    assert json.loads((tmp_path / "run" / "task.json").read_text())["thresholds"] == [0.25] * 3
    assert not (tmp_path / "run" / "checkpoint-2" / "task.fitted.json").exists()
    for settings, words in (
        (
            {"threshold": 0.25},
            "--threshold: it is for rows that may have several labels, and the model gives",
        ),
        ({**files, "balanced_sampling": "true"}, "--balanced_sampling: a row may have several labels"),
    ):
        done = workshop.train(0, tmp_path / "other", max_steps=2, **settings)
        assert done.returncode == 2 and words in done.output and "Traceback" not in done.output, done.output
