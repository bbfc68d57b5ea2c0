"""Rows of every format come out alike, each with what is wrong with it; what is wrong with a whole input is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ringtune.train import json_rows
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.task.regression import Regression

UNKNOWN = Regression(None)  # a model of which it is not known on what it was trained


def read(path, task=UNKNOWN, **settings):
    config = PredictConfig("m", str(path), "o.jsonl", **settings)
    source = inputs.open_source(config, task)
    batches = list(inputs.in_chunks(source.read(inputs.choose_columns(source, config, task))))
    return [row for batch in batches for row in batch.to_pylist()], source


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", '\ufefftext,label\n"a, b",up\n\nc,down\n'),
        ("t.tsv", "text\tlabel\na, b\tup\nc\tdown\n"),
        ("t.jsonl", '{"text": "a, b", "label": "up"}\n\n{"label": "down", "text": "c"}\n'),
        ("t.json", '[{"text": "a, b", "label": "up"},\n {"text": "c", "label": "down"} ]\n'),
        ("t.json", '{"text": "a, b", "label": "up"}\n{"text": "c", "label": "down"}\n'),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    rows, _ = read(write(tmp_path, name, content))
    assert [(row["text/0"], row["label"], row["error"]) for row in rows] == [("a, b", "up", None), ("c", "down", None)]


def test_parquet_and_a_data_set_folder_give_the_same_rows_and_keep_their_types(tmp_path):
    (tmp_path / "set").mkdir()
    table = pa.table({"text": ["a, b", "c"], "label": [True, False], "id": pa.array([7, 8], pa.int16())})
    pq.write_table(table, tmp_path / "set" / "test.parquet")
    for place in (tmp_path / "set" / "test.parquet", tmp_path / "set"):
        rows, _ = read(place, keep_columns="id")
        assert [(row["text/0"], row["label"], row["kept/id"]) for row in rows] == [
            ("a, b", "True", 7),
            ("c", "False", 8),
        ]


def test_plain_text_has_a_row_a_line_and_pairs_have_two_texts(tmp_path):
    rows, _ = read(write(tmp_path, "t.txt", "one\r\n\ntwo, three"))
    assert [row["text/0"] for row in rows] == ["one", "", "two, three"]
    rows, _ = read(write(tmp_path, "p.csv", "sentence1,sentence2,label\na,b,0\n"))
    assert (rows[0]["text/0"], rows[0]["text/1"], rows[0]["label"]) == ("a", "b", "0")


@pytest.mark.parametrize(
    ("name", "content", "line", "error"),
    [
        ("t.csv", b"text,label\nfine,up\nb\xe4d,down\n", 3, "byte 0xe4 in column 'text' is not UTF-8"),
        ("t.csv", "text,label\nfine,up\nbad\n", 3, "it has 1 fields, the header 2"),
        ("t.csv", 'text,label\n"fi\nne",up\n"bad,down\n', 4, "it cannot be read as csv: unexpected end of data"),
        ("t.txt", b"fine\nb\xe4d\n", 2, "byte 0xe4 in column 'text' is not UTF-8"),
        ("t.jsonl", b'{"text": "fine"}\n{"text": "b\xe4d"}\n', 2, "byte 12 of the line, 0xe4, is not UTF-8"),
        ("t.jsonl", '{"text": "fine"}\n{"text": "bad"\n', 2, "it is not JSON: Expecting ',' delimiter"),
        ("t.jsonl", '{"text": "fine"}\n["bad"]\n', 2, "it is ['bad'], not a JSON object"),
        ("t.jsonl", '{"text": "fine"}\n{"text": 7}\n', 2, "column 'text' holds 7, not text"),
        ("t.jsonl", '{"text": "fine"}\n{"text": null}\n', 2, "there is no text in column 'text'"),
        ("t.jsonl", '{"text": "fine"}\n{"body": "bad"}\n', 2, "there is no text in column 'text'"),
        ("t.jsonl", '{"text": "fine"}\n{"text": "b\\ud83dd"}\n', 2, "half a character, \\ud83d, in column 'text'"),
        ("t.jsonl", '{"text": "fine"}\n' + "[" * 100_000 + "\n", 2, "it is nested too deeply"),
        ("t.json", '[{"text": "fine"}, 7]', 2, "it is 7, not a JSON object"),
    ],
)
def test_a_row_that_cannot_be_used_is_marked_with_line_and_reason_and_stops_nothing(
    tmp_path, name, content, line, error
):
    rows, source = read(write(tmp_path, name, content), text_column_names="text")
    assert rows[0]["error"] is None and rows[0]["text/0"] in ("fine", "fi\nne")
    assert rows[1]["line"] == line and error in rows[1]["error"] and rows[1]["text/0"] is None
    unit = ": row " if content[:1] == "[" else ":"  # the elements of an array have numbers, not lines
    assert source.files[0].row(line) == f"{tmp_path / name}{unit}{line}"


def test_bytes_that_are_not_utf8_in_parquet_are_marked_too(tmp_path):
    bad = pa.array([b"fine", b"b\xe4d", None], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "t.parquet")
    rows, _ = read(tmp_path / "t.parquet", keep_columns="all")
    errors = [row["error"] for row in rows]
    assert errors == [None, "byte 0xe4 in column 'text' is not UTF-8", "there is no text in column 'text'"]
    assert rows[1]["kept/text"] == "b?d"


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("t.csv", "", {}, "the file is empty"),
        ("t.doc", "x", {}, "the ending .doc is not known"),
        ("t.csv", "text,text\na,b\n", {}, "the header: it has 'text' twice"),
        ("t.csv", "text\na\n", {"keep_columns": "txt"}, "no column 'txt'; it has text; the nearest is text"),
        ("t.csv", "text\na\n", {"label_column_name": "lable"}, "no column 'lable'"),
        ("t.csv", "id,label\n1,a\n", {}, "there is no text column"),
        ("t.csv", b"te\xe4xt\na\n", {}, "the header cannot be read"),
        ("t.jsonl", "not json\n", {}, "no row of it is a JSON object"),
        ("t.json", '[{"text": "a"}, {"text"', {}, "row 2: it is not JSON"),
        ("t.parquet", "PAR1", {}, "it cannot be read as parquet"),
        ("none.csv", None, {}, "there is no such file"),
    ],
)
def test_what_is_wrong_with_a_whole_input_is_one_line(tmp_path, name, content, settings, message):
    if content is not None:
        write(tmp_path, name, content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / name, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_parquet_column_of_numbers_is_no_text(tmp_path):
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="column 'text' holds int64, not text"):
        read(tmp_path / "t.parquet")


def test_json_values_are_kept_as_they_are_and_no_key_of_any_row_is_lost(tmp_path):
    rows = [{"text": "a", "n": 1}, {"text": "b", "more": {"deep": [1, None]}}]
    found, source = read(
        write(tmp_path, "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
        keep_columns="all",
        text_column_names="text",
    )
    assert source.names == ("text", "n", "more")
    assert [json.loads(row["kept/more"]) if row["kept/more"] else None for row in found] == [None, {"deep": [1, None]}]


def test_chunks_have_their_sizes_however_the_input_comes(tmp_path):
    parts = [pa.RecordBatch.from_pydict({"row": list(range(start, start + 300))}) for start in range(0, 10_500, 300)]
    found = list(inputs.in_chunks(parts))
    assert [each.num_rows for each in found] == [512] * 16 + [1024, 1024, 260]
    assert [row for each in found for row in each.column("row").to_pylist()] == list(range(10_500))


def test_long_arrays_are_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "BYTES_PER_READ", 7)  # every element, and every space between two, is torn somewhere
    content = "[ " + " ,\n ".join(json.dumps({"text": "x" * (number % 9)}) for number in range(50)) + " ]"
    rows, _ = read(write(tmp_path, "t.json", content))
    assert [len(row["text/0"]) for row in rows] == [number % 9 for number in range(50)]


def test_the_columns_of_training_are_read_whatever_others_an_input_has(tmp_path):
    path = write(tmp_path, "t.csv", "author,text,note\nann,fine,x\n")
    trained = Regression(Columns(("text",), "label"))
    rows, _ = read(path, trained)
    assert rows[0]["text/0"] == "fine" and "text/1" not in rows[0]
    rows, _ = read(path, trained, text_column_names="note")
    assert rows[0]["text/0"] == "x"
    with pytest.raises(
        UsageError, match="there is no column 'text', which the model was trained on; it has author, body"
    ):
        read(write(tmp_path, "other.csv", "author,body\nann,fine\n"), trained)
    rows, _ = read(write(tmp_path, "t.txt", "fine\n"), Regression(Columns(("review",), "label")))
    assert rows[0]["text/0"] == "fine"  # plain text has no names: its one column is the model's


def test_rows_in_memory_are_texts_pairs_or_dictionaries(tmp_path):
    def rows(items, task=UNKNOWN, **settings):
        config = PredictConfig("m", "", "", **settings)
        source = inputs.rows_in_memory(items, config, task)
        columns = inputs.choose_columns(source, config, task)
        return [row for batch in source.read(columns) for row in batch.to_pylist()]

    trained = Regression(Columns(("premise", "hypothesis"), "label"))
    assert [row["text/0"] for row in rows(iter(["a", "b"]))] == ["a", "b"]
    assert [(row["text/0"], row["text/1"]) for row in rows([("a", "b"), ["c", "d"]], trained)] == [
        ("a", "b"),
        ("c", "d"),
    ]
    several = [{"id": 1, "premise": "a", "hypothesis": "b"}, {"premise": "c"}, "d"]
    found = rows(several, trained, keep_columns="id")
    assert (found[0]["text/1"], json.loads(found[0]["kept/id"])) == ("b", 1)
    assert [row["error"] for row in found] == [
        None,
        "there is no text in column 'hypothesis'",
        "it is 'd', not a dictionary",
    ]
    assert [row["error"] for row in rows(["a", 7])] == [None, "it is 7, not a text"]
    with pytest.raises(UsageError, match="there is no column 'hypothesis', which the model was trained on"):
        rows(["a"], trained)
    with pytest.raises(UsageError, match="there are no rows in it"):
        rows([])
