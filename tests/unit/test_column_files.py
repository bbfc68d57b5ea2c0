"""Column files: what parts their columns, and how prediction knows them under endings of texts and tables."""

from __future__ import annotations

import tracemalloc

import pytest
from preparing import train
from ringtune.train.columns import Columns
from ringtune.train.conll_rows import ConllFile
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
    assert opened(tmp_path / "t.txt", "the film\nis O\n").shapes == {}  # few lines end in a tag
    assert opened(tmp_path / "t.txt", "blood group O\n").shapes == {}  # a single line
    assert opened(tmp_path / "t.txt", "Berlin S-Bahn\nHello E-Mail\n").shapes == {}  # of no type that is known
    assert opened(tmp_path / "t.txt", "O\nO\n").shapes == {}  # no word before them
    assert opened(tmp_path / "t.tsv", "words\ttags\nO\tO\n").names == ("words", "tags")
    assert opened(tmp_path / "t.txt", ROWS, input_format="text").shapes == {}
    assert opened(tmp_path / "t.txt", ROWS, Regression(None)).shapes == {}


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0", "\u2028"])
def test_only_blanks_and_tabs_make_a_line_blank(tmp_path, blank):
    source = opened(tmp_path / "t.conll", f"the\n{blank}\nfilm\n \t \nodd\n")
    assert rows_of(source) == [f"the {blank} film", "odd"]
    source = opened(tmp_path / "t.conll", f"the\tO\n{blank}\tO\nfilm\tB-X\n\t\nodd\tO\n")
    assert rows_of(source) == [f"the {blank} film", "odd"]


def test_a_line_without_its_tag_is_reported_and_the_tags_may_stand_in_another_column(tmp_path):
    source = opened(tmp_path / "t.txt", ROWS * 9 + "the O\nfilm\n")
    columns = inputs.choose_columns(source, PredictConfig("m", "x", "o.jsonl"), TASK)
    errors = [row["error"] for batch in source.read(columns) for row in batch.to_pylist()]
    assert "line 56 has 1 columns, the first one 2" in errors[-1] and not any(errors[:-1])
    second = TokenClassification(Columns(("words",), "2", form=WORDS), TASK.classes, "iob2")
    source = opened(tmp_path / "t.txt", "the O DT\nfilm B-X NN\n", second)
    assert source.names == ("words", "2", "3") and source.shapes["2"] == WORDS


def test_little_is_kept_of_a_file_of_another_kind(tmp_path):
    """One without blank lines is a single sentence, however large it is."""
    path = written(tmp_path / "t.txt", "the film\n" + "one line more of it is of no use\n" * 100_000)
    tracemalloc.start()
    assert opened(path, path.read_text()).shapes == {}
    (_, values, error), *_ = ConllFile(path, "words", "tags").rows()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values == {} and error == "line 2 has 9 columns, the first one 2" and peak < 3 * path.stat().st_size


def test_only_blanks_and_tabs_part_columns_and_none_is_part_of_a_tag(tmp_path):
    found = train(tmp_path, written(tmp_path / "t.conll", "10\u00a0film O\nplot\u3000a \t B-X\n\nodd  O \n"))
    assert found.task.types == ("X",) and found.train.num_features == 2
    tabs = train(tmp_path, written(tmp_path / "u.conll", "the\tB-X \nfilm\t I-X\n\nodd\tO \n"))
    assert tabs.task.types == ("X",)


def written(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "hint"), [("t.tsv", "the ending is .conll"), ("t.conll.txt", "--task to")])
def test_training_says_how_such_a_file_is_read(tmp_path, name, hint):
    with pytest.raises(UsageError, match=hint):
        train(tmp_path, written(tmp_path / name, "the\tO\nfilm\tB-X\n"))


def test_the_last_column_has_its_number_and_another_one_than_asked_for_is_never_learnt(tmp_path):
    path = written(tmp_path / "t.conll", "the DT B-X O\nfilm NN O B-Y\n")
    types = [train(tmp_path, path, label_column_name=name).task.types for name in ("label", "4", "3")]
    assert types == [("Y",), ("Y",), ("X",)]
    for name, message in (("9", "there is no list of tags"), ("tag", "there is no column 'tag'")):
        with pytest.raises(UsageError, match=message):
            train(tmp_path, path, label_column_name=name)
