"""Rows are read as they are or refused in one line."""

from __future__ import annotations

import errno
import logging

import pytest
from preparing import GOOD, load, task, texts
from ringtune.train import rows
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.task.classification import Classification


@pytest.mark.parametrize(
    ("train", "dev", "settings", "message"),
    [
        ("text,lable\nfine,up\n", None, {}, "no column 'label'; it has text, lable; the nearest is lable"),
        ("", None, {}, "the file is empty"),
        ("text,label\n", None, {}, "there are no rows"),
        ("text,label\n\nfilm,up,3\nplot,down,4\n", None, {}, "train.csv:3: it has 3 fields, the header 2"),
        ('text,label\n"a\n""b""",up,\nbad,down,\n', None, {}, "train.csv:2: it has 3 fields, the header 2"),
        ("text,text,label\nfilm,plot,up\n", None, {}, "train.csv: the header: it has 'text' twice; each name once"),
        ("text,label,label\nfilm,up,down\n", None, {"text_column_names": "text"}, "it has 'label' twice"),
        (GOOD, None, {"task_name": "stbs"}, "--task_name: stbs is no GLUE task; cola, sst2"),
        (GOOD, "text,label\nfine,up\nodd,sideways\n", {}, "dev_train.csv:3: the label 'sideways' does not occur"),
        (b"text,label\nfine,up\nb\xe4d,down\n", None, {}, "train.csv:3: byte 0xe4 in column 'text' is not UTF-8"),
        ("text,label\nfine,up\nbad\n", None, {}, "train.csv:3: it has 1 fields, the header 2"),
        ("text,label\nfine,0.5\nbad,nan\n", None, {}, "train.csv:3: the rating in column 'label' is 'nan'"),
        ("text,label\nfine,0.5\nbad,inf\n", None, {}, "train.csv:3: the rating in column 'label' is 'inf'"),
        ("text,label\nfine,up\nbad,\n", None, {}, "train.csv:3: there is no label in column 'label'"),
        ("text,label\nfine,up\nbad,up\n", None, {}, "all rows have the label 'up'"),
        ("text,label\nfine,0.5\nbad,1\n", None, {"regression": False}, "holds numbers such as '0.5', not classes"),
        ('text,label\n"fine,up\nbad,down,more\nx', None, {}, "it cannot be read as csv"),
        (GOOD, None, {"text_column_names": "a,b,c"}, "names 3 columns"),
        (GOOD, None, {"text_column_names": "text,text"}, "two different ones"),
        ("text,label\nfine,1.5\nbad,1e300\n", None, {}, "train.csv:3: the rating in column 'label' is '1e300'"),
        ("text,label\nfine,x\n", None, {"regression": True}, "train.csv:2: the rating in column 'label' is 'x'"),
        ('text,label\n"fine\nfilm",up\nbad,down,more\n', None, {}, "train.csv:4: it has 3 fields, the header 2"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, train, dev, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, train, dev, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_cache_is_not_the_files_fault(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows.pa, "OSFile", full)
    with pytest.raises(UsageError, match="--cache_dir .*cache: there is no room left; room for the rows"):
        load(tmp_path, GOOD)
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def test_libraries_add_no_words_of_their_own_to_an_error(tmp_path):
    said: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = said.append
    logging.getLogger("datasets").addHandler(listener)
    try:
        with pytest.raises(UsageError, match="cannot be read as parquet"):
            load(tmp_path, "torn", name="t.parquet")
    finally:
        logging.getLogger("datasets").removeHandler(listener)
    assert not said


def test_a_nan_rating_in_json_is_refused(tmp_path):
    with pytest.raises(UsageError, match="t.jsonl:2: the rating in column 'label' is None"):
        load(tmp_path, '{"text": "a", "label": 0.5}\n{"text": "b", "label": null}\n', name="t.jsonl")


@pytest.mark.parametrize("regression", [None, True])
@pytest.mark.parametrize("label", ['["x"]', "[1]", "[0.5]", '{"x": 1}', "null", '"2020-01-01T00:00:00"'])
def test_labels_that_are_no_labels_are_refused_in_one_line(tmp_path, label, regression):
    """What nests numbers is not a number."""
    with pytest.raises(
        UsageError,
        match=r"there is no label in column 'label'|the rating in column 'label' is|the label '2020|all rows have"
        r"|the only label in it is|neither a text nor a whole number|a row may have several labels",
    ):
        load(tmp_path, f'{{"text": "a", "label": {label}}}\n' * 2, name="t.jsonl", regression=regression)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbftext,label\nfine film,up\nbad,down\n", b"text,label\r\nfine film,up\r\nbad,down\r\n"],
    ids=["BOM", "CRLF"],
)
def test_files_of_other_systems_give_the_same_rows(tmp_path, content):
    assert task(tmp_path, content).classes == ("down", "up")
    assert texts(tmp_path / "train.csv") == ["fine film", "bad"]


def test_quoted_texts_keep_their_lines_and_quotes(tmp_path):
    load(tmp_path, 'text,label\n"fine, ""warm""\nfilm",up\nbad,down\n')
    assert texts(tmp_path / "train.csv") == ['fine, "warm"\nfilm', "bad"]


def test_a_name_that_is_there_twice_and_not_used_does_no_harm(tmp_path):
    found = load(tmp_path, "text,label,note,note,,\nfine,up,1,2,,\nbad,down,1,2,,\n", text_column_names="text")
    assert found.task.columns.text == ("text",) and texts(tmp_path / "train.csv") == ["fine", "bad"]


def test_texts_that_look_like_missing_values_stay_texts(tmp_path):
    load(tmp_path, "text,label\nNA,up\nnull,down\nNone,up\n007,up\n")
    assert texts(tmp_path / "train.csv") == ["NA", "null", "None", "007"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("up", "down", " up"), ("down", "up")),
        (("10", "9", "-1"), ("-1", "9", "10")),
        (("01", "02", "1"), ("01", "1", "02")),
        (("true", "FALSE", "True"), ("False", "True")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("1e3", "2f4", "x"), ("1e3", "2f4", "x")),
        (("0.5", "1", "3"), None),
        (("1e-3", "2", "3"), None),
    ],
)
def test_what_a_label_column_is_follows_from_the_whole_column(tmp_path, labels, classes):
    rows = "".join(f"film,{label}\n" for label in labels)
    found = task(tmp_path, "text,label\n" + rows)
    assert (found.kind, getattr(found, "classes", None)) == ("classification" if classes else "regression", classes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "sentence1,sentence2,label\na,b,0\nc,d,1\n"),
        ("t.tsv", "sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t1\n"),
        ("t.jsonl", '{"sentence1":"a","sentence2":"b","label":0}\n{"sentence1":"c","sentence2":"d","label":1}\n'),
    ],
)
def test_every_format_gives_the_same_task(tmp_path, name, content):
    assert task(tmp_path, content, name=name) == Classification(
        Columns(("sentence1", "sentence2"), "label"), ("0", "1")
    )


def test_parquet_and_boolean_labels_work(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b"], "label": [True, False]}), tmp_path / "t.parquet")
    assert task(tmp_path, (tmp_path / "t.parquet").read_bytes(), name="t.parquet").classes == ("False", "True")
