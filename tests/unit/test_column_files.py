"""Column files: what parts their columns, and how prediction knows them under endings of texts and tables."""

from __future__ import annotations

import pytest
from preparing import train
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.shapes import WORDS
from ringtune.train.task.regression import Regression
from ringtune.train.task.token_classification import TokenClassification

TASK = TokenClassification(Columns(("words",), "tags", form=WORDS), ("O", "B-X", "I-X"), "iob2")
ROWS = "-DOCSTART- O\n\nthe O\nfilm B-X\n\nodd O\n"


def opened(path, content, task=TASK, **settings):
    path.write_text(content, encoding="utf-8")
    return inputs.open_source(PredictConfig("m", str(path), "o.jsonl", **settings), task)


def rows_of(source):
    columns = inputs.choose_columns(source, PredictConfig("m", "x", "o.jsonl"), TASK)
    return [row["text/0"] for batch in source.read(columns) for row in batch.to_pylist()]


@pytest.mark.parametrize(("name", "blank"), [("t.txt", " "), ("t.tsv", "\t"), ("t.txt", "\t")])
def test_prediction_reads_a_column_file_under_any_ending_that_training_takes(tmp_path, name, blank):
    source = opened(tmp_path / name, ROWS.replace(" ", blank))
    assert rows_of(source) == ["the film", "odd"]
    assert any("it is read as a column file" in note for note in source.notes)


def test_other_content_other_tasks_and_a_named_format_leave_files_as_they_are(tmp_path):
    assert opened(tmp_path / "t.txt", "the film\nis O\n").shapes == {}  # not all lines end in a tag
    assert opened(tmp_path / "t.txt", "O\nO\n").shapes == {}  # no word before them
    assert opened(tmp_path / "t.tsv", "words\ttags\nO\tO\n").names == ("words", "tags")
    assert opened(tmp_path / "t.txt", ROWS, input_format="text").shapes == {}
    assert opened(tmp_path / "t.txt", ROWS, Regression(None)).shapes == {}


def test_only_blanks_and_tabs_part_columns_and_none_is_part_of_a_tag(tmp_path):
    found = train(tmp_path, written(tmp_path / "t.conll", "10\u00a0film O\nplot\u3000a \t B-X\n\nodd  O \n"))
    assert found.task.types == ("X",) and found.train.num_features == 2
    tabs = train(tmp_path, written(tmp_path / "u.conll", "the\tB-X \nfilm\t I-X\n\nodd\tO \n"))
    assert tabs.task.types == ("X",)


def written(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "hint"), [("t.tsv", "a word and its tag: --task token"), ("t.conll.txt", "--task to")]
)
def test_training_names_the_task_that_reads_such_a_file(tmp_path, name, hint):
    with pytest.raises(UsageError, match=hint):
        train(tmp_path, written(tmp_path / name, "the\tO\nfilm\tB-X\n"))


def test_the_last_column_has_its_number_and_another_one_than_asked_for_is_never_learnt(tmp_path):
    path = written(tmp_path / "t.conll", "the DT B-X O\nfilm NN O B-Y\n")
    types = [train(tmp_path, path, label_column_name=name).task.types for name in ("label", "4", "3")]
    assert types == [("Y",), ("Y",), ("X",)]
    for name, message in (("9", "there is no list of tags"), ("tag", "there is no column 'tag'")):
        with pytest.raises(UsageError, match=message):
            train(tmp_path, path, label_column_name=name)
