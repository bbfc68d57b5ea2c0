"""Scores of a prediction from its parts: of every kind of task, and whatever its chunks hold."""

from __future__ import annotations

import answering
import choosing
import numpy as np
import pyarrow as pa
import pytest
import torch
from ringtune.train.predict import predictor, report
from ringtune.train.predict.clock import Clock
from ringtune.train.predict.parts import read_part, write_part
from ringtune.train.predict.predictor import Predictor
from ringtune.train.step import Precision
from ringtune.train.task import tags
from ringtune.train.task.classification import Classification
from ringtune.train.task.mask_filling import MaskFilling
from ringtune.train.task.masking import Masking
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.multiple_choice import MultipleChoice
from ringtune.train.task.ordinal import Ordinal
from ringtune.train.task.regression import Regression
from ringtune.train.task.token_classification import TokenClassification
from tiny import make_tokenizer

TAGS = ("O", "B-X", "I-X")
QUESTIONS = [row for row in answering.ROWS if row["answers"]["text"]][:2]
CHOICES = choosing.draw_rows(2, 3)
MEASURES = {"mine": lambda task, outputs, labels: float(len(outputs))}  # what `measures.choose` gives


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def tagged(*names: str) -> str:
    return tags.written(tags.entities(list(names)), len(names))


#: A task, and two rows of it that can be scored.
KINDS = {
    "classification": (Classification(None, ("a", "b", "c")), {"text/0": ["good", "bad"], "label": ["a", "b"]}),
    "regression": (Regression(None), {"text/0": ["good", "bad"], "label": ["1", "2.5"]}),
    "ordinal": (Ordinal(None, ("1", "2", "3")), {"text/0": ["good", "bad"], "label": ["1", "3"]}),
    "multi_label": (MultiLabel(None, ("a", "b"), (0.5, 0.5)), {"text/0": ["good", "bad"], "label": ['["a"]', "[]"]}),
    "one_label": (MultiLabel(None, ("a",), (0.5,)), {"text/0": ["good", "bad"], "label": ['["a"]', "[]"]}),
    "multiple_choice": (
        MultipleChoice(None, 4, "from_0"),
        {
            "text/0": [each[0] for each in CHOICES],
            "text/1": [each[1] for each in CHOICES],
            "choices": [list(each[2]) for each in CHOICES],
            "label": ["0", "1"],
        },
    ),
    "tags": (
        TokenClassification(None, TAGS, "iob2"),
        {
            "text/0": ["good film", "bad film"],
            "words": [[0, 4, 5, 9], [0, 3, 4, 8]],
            "label": [tagged("O", "B-X"), tagged("B-X", "I-X")],
        },
    ),
    "answers": (answering.TASK, answering.batch_of(QUESTIONS).to_pydict()),
}


def chunk_of(columns, *, usable: bool = True, group: str = "x", **more) -> pa.RecordBatch:
    """Return a chunk of the reader's rows. usable: whether all can be, or none."""
    num_rows = len(columns["text/0"])
    error = pa.array([None if usable else "there is no text"] * num_rows, pa.string())
    return pa.RecordBatch.from_pydict({**columns, "slice/group": [group] * num_rows, "error": error, **more})


def parts_of(task, tokenizer, folder, monkeypatch, *chunks: pa.RecordBatch, num_lost: int = 0) -> report.Parts:
    """Return what is predicted of chunks, with random numbers for a model's. num_lost: first terms that get none."""
    draw, lost = np.random.default_rng(5), [num_lost]

    def outputs_of(model, task, features, batch, precision):
        size = (int(features.num_terms[batch].sum()), task.width)
        # Of an answer, some numbers are places in its context.
        numbers = np.zeros(size) if task is answering.TASK else draw.normal(size=size)
        numbers[: lost.pop() if lost else 0] = np.nan
        return torch.from_numpy(numbers.astype(np.float32))

    monkeypatch.setattr(predictor, "outputs_of", outputs_of)
    made = Predictor(task, torch.nn.Linear(1, 1), tokenizer, 48, 1024, Precision(torch.device("cpu"), None))
    for number, chunk in enumerate(chunks):
        write_part(folder, number, made.predict(chunk, Clock()))
    paths = sorted(folder.glob("part-*"))
    return report.Parts(paths, folder, (), sum(chunk.num_rows for chunk in chunks))


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_without_a_usable_row_counts_for_no_score(kind, tokenizer, tmp_path, monkeypatch):
    task, columns = KINDS[kind]
    bad, good = chunk_of(columns, usable=False, group="y"), chunk_of(columns)
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, bad, good, bad)
    measures = {} if task.answers(np.zeros((1, task.width), dtype=np.float32)) is None else MEASURES
    scores = found.scores(task, measures)
    assert scores is not None and scores.num_rows == 2 and set(task.score_names) <= set(scores.values)
    (sliced,) = found.by_slice(task, measures)
    assert set(sliced.scores) == {"x"} and sliced.scores["x"] == {**scores.values, "num_rows": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_slice_are_those_of_their_chunks(kind, tokenizer, tmp_path, monkeypatch):
    """The first row of each chunk has the number 0 in it, and the slice."""
    task, columns = KINDS[kind]
    chunk = chunk_of(columns, **{"slice/group": ["first", "other"]})
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, chunk, chunk, chunk)
    parts = []
    for path in found.paths:
        groups = np.array(predictor.scored_slices(read_part(path), task).column("slice/group").to_pylist())
        parts.append([each[groups == "first"] for each in predictor.scored_rows(read_part(path), task)])
    expected = task.scores(parts)
    (sliced,) = found.by_slice(task, {})
    assert expected.num_rows == 3 and sliced.scores["first"] == {**expected.values, "num_rows": 3}


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_an_error_does_not_count_with_what_is_left_of_it(kind, tokenizer, tmp_path, monkeypatch):
    task, columns = KINDS[kind]
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, chunk_of(columns), num_lost=1)
    part = read_part(found.paths[0])
    (row,) = [row for row, error in enumerate(part.column("error").to_pylist()) if error is None]
    scores = found.scores(task, {})
    assert scores.num_rows == 1 and (kind != "tags" or scores.details["num_words"] == 2)
    assert predictor.scored_slices(part, task).num_rows == len(part.column("score/outputs")[row]) // task.width


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_usable_row_there_are_no_scores_and_no_slices(kind, tokenizer, tmp_path, monkeypatch):
    task, columns = KINDS[kind]
    bad = chunk_of(columns, usable=False)
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, bad, bad)
    assert found.scores(task, MEASURES) is None and found.by_slice(task, MEASURES) == []
    lines: list[str] = []
    report.report_scores(None, [], found.num_rows, lines.append)
    assert lines == ["no row has a label that the model knows: no scores"]


def test_masks_have_no_scores_whether_or_not_a_row_is_usable(tokenizer, tmp_path, monkeypatch):
    task = MaskFilling(None, Masking(), tokenizer)
    columns = {"text/0": ["a [MASK] film", "[MASK]"]}
    chunks = [chunk_of(columns, usable=usable) for usable in (False, True)]
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, *chunks)
    assert not found.has_labels and found.scores(task, {}) is None
    assert read_part(found.paths[1]).column("text_filled").null_count == 0


#: Columns of an input, with names that parts have for what is scored.
OWN = ("score/label", "score/outputs", "score/slice/group", "score/kept/score/label", "score/x", "slice/group", "error")


@pytest.mark.parametrize("labelled", [True, False])
def test_kept_columns_are_written_and_not_scored_whatever_their_names(labelled, tokenizer, tmp_path, monkeypatch):
    task, columns = KINDS["classification"]
    columns = {name: each for name, each in columns.items() if labelled or name != "label"}
    kept = {f"kept/{name}": [f"{name} 1", f"{name} 2"] for name in OWN}
    found = parts_of(task, tokenizer, tmp_path, monkeypatch, chunk_of(columns, **kept))
    shown = predictor.shown_columns(read_part(found.paths[0])).to_pydict()
    given = ["label", "probability_a", "probability_b", "probability_c", "error"]
    assert list(shown) == [*OWN[:-1], "input_error", *given]
    assert all(shown[f"input_{name}" if name == "error" else name] == kept[f"kept/{name}"] for name in OWN)
    scores = found.scores(task, {})
    assert (scores is not None) == found.has_labels == labelled
    if scores is not None:
        (sliced,) = found.by_slice(task, {})
        assert (sliced.column, sliced.scores) == ("group", {"x": {**scores.values, "num_rows": 2}})


def test_a_part_of_an_earlier_version_keeps_the_columns_it_has():
    earlier = pa.RecordBatch.from_pydict(
        {"score/x": ["a"], "label": ["up"], "score/label": [[1]], "score/outputs": [[0.5]]}
    )
    assert predictor.shown_columns(earlier).to_pydict() == {"score/x": ["a"], "label": ["up"]}
