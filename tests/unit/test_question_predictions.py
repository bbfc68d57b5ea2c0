"""Predictions of answers: those of the model's own numbers, or none where that scores more."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from answering import ROWS, TASK, answerer, batch_of, naive
from ringtune.train import model as models
from ringtune.train import task as tasks
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import outputs_of
from ringtune.train.predict import predict
from ringtune.train.step import Precision
from ringtune.train.task.question_answering import QuestionAnswering
from tiny import make_tokenizer
from transformers import AutoModelForQuestionAnswering

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def features(tokenizer):
    return TASK.encode(batch_of(ROWS), tokenizer, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A model of answers as others leave it, without a task.json."""
    folder = tmp_path_factory.mktemp("answerer")
    answerer(max_position_embeddings=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_of_others_answers_as_its_auto_class_does(folder, tokenizer):
    """transformers 5 has no pipeline for answers: the numbers are those of AutoModelForQuestionAnswering."""
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    rows = [{"question": row["question"], "context": row["context"]} for row in ROWS]
    ours = list(predict(str(folder), rows, max_seq_length=64, max_answer_length=4))
    pairs = list(predict(str(folder), [tuple(row.values()) for row in rows], max_seq_length=64, max_answer_length=4))
    assert ours == pairs
    for row, mine in zip(rows, ours, strict=True):
        inputs = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
        places = inputs.pop("offset_mapping")[0].numpy()
        of_context = np.array([each == 1 for each in inputs.sequence_ids(0)])
        output = model(**inputs)
        starts, ends = (np.where(of_context, each, -1) for each in places.T)
        logits = [output[name][0].detach().numpy() for name in ("start_logits", "end_logits")]
        _, start, end = naive(*logits, starts, ends)[0]
        assert (mine["start"], mine["end"], mine["answer"]) == (start, end, row["context"][start:end])
        assert 0 < mine["probability"] <= 1


def test_no_answer_is_given_where_it_may_be_and_scores_more(folder, tmp_path):
    rows = [{"question": row["question"], "context": row["context"]} for row in ROWS]
    never = list(predict(str(folder), rows, max_seq_length=64))
    assert all(row["answer"] for row in never)
    always = list(predict(str(folder), rows, max_seq_length=64, null_score_diff_threshold=-1e3))
    assert all(row == {"answer": "", "probability": row["probability"]} for row in always)
    for threshold in (-16.0, -12.0, -8.0, -4.0, 0.0):
        given = {"max_seq_length": 64, "null_score_diff_threshold": threshold, "top_k": 2}
        some_of_them = list(predict(str(folder), rows, **given))
        if 0 < sum(row["answer"] == "" for row in some_of_them) < len(rows):
            break
    assert 0 < sum(row["answer"] == "" for row in some_of_them) < len(rows)
    for row, other in zip(some_of_them, never, strict=True):
        assert row["answer"] in ("", other["answer"]) and len(row["n_best"]) == 2
    own = tmp_path / "own"
    own.mkdir()
    for each in folder.iterdir():
        (own / each.name).write_bytes(each.read_bytes())
    trained = QuestionAnswering(Columns(("question", "context"), "answers", form="answers"), has_unanswered=False)
    (own / "task.json").write_bytes(tasks.to_bytes(trained, 64))
    with pytest.raises(UsageError, match="--null_score_diff_threshold: it is of questions without an answer"):
        predict(str(own), rows, null_score_diff_threshold=0.0)
    with pytest.raises(UsageError, match="--top_k: 30 is more than are kept of a row; at most --n_best_size 20"):
        predict(str(own), rows, top_k=30)
    found = list(
        predict(str(own), [*rows[:2], {"question": "good", "context": None}, rows[2]], n_best_size=40, top_k=30)
    )
    assert [row.get("answer") for row in found] == [*(row["answer"] for row in never[:2]), None, never[2]["answer"]]
    assert "there is no text in column 'context'" in found[2]["error"]
    assert json.loads(json.dumps(found[0])) == found[0]


@pytest.mark.parametrize(
    ("threshold", "null", "given", "n_best"),
    [(0.0, 3.0, "", [""]), (5.0, 3.0, "good", [""]), (0.0, -3.0, "good", ["good"]), (-5.0, -3.0, "", ["good"])],
)
def test_the_best_answers_are_the_most_probable_whichever_the_threshold_gives(
    tokenizer, threshold, null, given, n_best
):
    task = QuestionAnswering(None, has_unanswered=True, n_best_size=2, null_score_diff_threshold=threshold)
    rows = pa.RecordBatch.from_pydict({"text/0": ["a film"], "text/1": ["good plot"]})
    numbers = np.array([[0, null, 1, 0, 0, 5, 4, 9]], dtype=np.float32)  # of "good", which scores 1, and of "plot"
    found = task.predict_rows(numbers, task.encode(rows, tokenizer, 24), rows, top_k=1)
    assert found["answer"].to_pylist() == [given]
    assert [[each["answer"] for each in best] for best in found["n_best"].to_pylist()] == [n_best]


def test_settings_of_answers_are_refused_for_other_tasks():
    from ringtune.train.task.classification import Classification

    config = type("Config", (), dict.fromkeys(("threshold", "doc_stride", "max_answer_length", "n_best_size")))
    config.null_score_diff_threshold, config.n_best_size = None, 3
    with pytest.raises(UsageError, match="--n_best_size: it is of answers, and the model gives classes a, b"):
        tasks.settle(Classification(None, ("a", "b")), config)


def test_scores_leave_out_rows_with_a_window_that_has_no_numbers_and_those_without_answers(features):
    outputs = outputs_of(answerer(), TASK, features, np.arange(features.num_features), Precision(CPU, None)).numpy()
    labels = TASK.targets(features)
    whole = TASK.scores([(outputs, labels)])
    assert whole.num_rows == len(ROWS)
    several = np.flatnonzero(np.bincount(features.row_of) > 1)[0]
    lost = np.flatnonzero(features.row_of == several)[0]
    kept = np.delete(np.arange(features.num_features), lost)
    without = np.flatnonzero(features.row_of != several)
    assert TASK.scores([(outputs[kept], labels[kept])]) == TASK.scores([(outputs[without], labels[without])])
    half = features.row_of < 7
    parts = [(outputs[half], labels[half]), (outputs[~half], labels[~half])]
    assert TASK.scores(parts) == whole


def test_loading_knows_the_kind_by_the_architecture(folder):
    model, task, length = models.load_trained(str(folder))
    assert task == QuestionAnswering(None) and length is None
    assert type(model).__name__ == "BertForQuestionAnswering"
