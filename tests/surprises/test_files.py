"""Files are read however they are packed, and what cannot be read is named in one short line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pytest
from preparing import load, settings_of
from ringtune.train import data, json_rows
from ringtune.train.contract import UsageError

LINES = '{"text": "fine", "label": "up"}\n{"text": "bad", "label": "down"}\n'
PACKED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(("name", "content"), [("t.csv", "text,label\nfine,up\nbad,down\n"), ("t.jsonl", LINES)])
def test_compressed_files_are_read(tmp_path, packed, name, content):
    found = load(tmp_path, PACKED[packed](content.encode()), name=f"{name}.{packed}")
    assert found.train.num_features == 2 and found.task.classes == ("down", "up")


@pytest.mark.parametrize("packed", PACKED)
def test_a_damaged_compressed_file_is_named(tmp_path, packed):
    content = PACKED[packed](("text,label\n" + "fine,up\nbad,down\n" * 500).encode())
    with pytest.raises(UsageError, match=rf"t.csv.{packed}: it cannot be decompressed"):
        load(tmp_path, content[: len(content) // 2], name=f"t.csv.{packed}")


def test_an_ending_that_is_not_known_is_refused_with_those_that_are(tmp_path):
    for name in ("t.xls", "t.parquet.gz", "t.gz"):
        with pytest.raises(UsageError, match=r"is not known; .csv, .tsv, .* also with .gz, .bz2, .xz, .zst"):
            load(tmp_path, b"x", name=name)


OBJECT = {"version": 1, "data": [{"text": "fine", "label": "up"}, {"text": "bad", "label": "down"}]}


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_in_a_field_of_one_object_are_found_and_that_is_reported(tmp_path, indent):
    found = load(tmp_path, json.dumps(OBJECT, indent=indent), name="t.json")
    assert found.train.num_features == 2
    assert any("its rows are those of the field 'data' (--data_field)" in line for line in found.report)


def test_a_field_inside_another_is_read_when_asked_for(tmp_path):
    found = load(tmp_path, json.dumps({"a": OBJECT, "data": 1}), name="t.json", data_field="a.data")
    assert found.train.num_features == 2 and not any("--data_field" in line for line in found.report)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": OBJECT["data"], "b": OBJECT["data"]}, "2 of its fields hold a list of objects.*--data_field NAME"),
        (
            {"text": {"0": "fine"}, "label": {"0": "up"}},
            "pandas' to_json.. writes.*orient=.records., lines=True",
        ),
        ({"text": ["fine", "bad"], "label": [1, 0]}, "pandas' to_json.. writes a table"),
    ],
)
def test_an_object_that_does_not_say_where_its_rows_are_is_refused_in_a_short_line(tmp_path, content, words):
    with pytest.raises(UsageError, match=words) as caught:
        load(tmp_path, json.dumps(content, indent=1), name="t.json")
    assert len(str(caught.value)) < 500


def test_a_table_of_hundreds_of_kilobytes_in_one_object_gives_a_short_line(tmp_path):
    columns = {name: {str(row): "fine" for row in range(20_000)} for name in ("text", "label")}
    for indent in (None, 1):
        with pytest.raises(UsageError, match="one object of columns") as caught:
            load(tmp_path, json.dumps(columns, indent=indent), name="t.json")
        assert len(str(caught.value)) < 500


def test_a_json_file_with_an_object_a_line_is_still_read_by_line(tmp_path):
    load(tmp_path, LINES, name="t.json")
    source = data.open_splits(settings_of(tmp_path, train_file=str(tmp_path / "t.json")))["train"]
    assert source.files[0].unit == ":"
    with pytest.raises(UsageError, match="t.json:3: it is not JSON"):
        load(tmp_path, LINES + "{broken\n", name="t.json")


ROW = {"id": 7, "text": "fine", "comments": [{"text": "c1", "label": "up"}, {"text": "c2", "label": "down"}]}
QUESTION = {"question": "who", "context": "Ann", "answers": [{"text": "Ann", "answer_start": 0}]}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("row", "names", "field"), [(ROW, "text", "comments"), (QUESTION, "question, context", "ans")])
def test_an_object_that_may_be_the_only_row_is_not_read_as_a_table_of_its_list(tmp_path, indent, row, names, field):
    message = rf"t.json: it is one object with a text \({names}\) and a list of objects \({field}.*--data_field {field}"
    with pytest.raises(UsageError, match=f"{message}.* if it is one row, name the file .jsonl") as caught:
        load(tmp_path, json.dumps(row, indent=indent), name="t.json")
    assert len(str(caught.value)) < 500


def test_an_object_that_may_be_a_row_is_read_as_either_when_that_is_said(tmp_path):
    assert load(tmp_path, json.dumps(ROW), name="t.json", data_field="comments").train.num_features == 2
    assert load(tmp_path, json.dumps(QUESTION), name="t.jsonl").train.num_features == 1
    noted = {"comment": "of films", "name": "films", **OBJECT}
    assert load(tmp_path, json.dumps(noted), name="t.json").train.num_features == 2


@pytest.mark.parametrize("settings", [{}, {"data_field": "data"}])
def test_an_object_of_many_lines_is_parsed_once_when_it_is_opened(tmp_path, monkeypatch, settings):
    parsed = []
    parse = json_rows._parse
    monkeypatch.setattr(json_rows, "_parse", lambda text: [parsed.append(text), parse(text)][1])
    path = tmp_path / "t.json"
    path.write_text(json.dumps(OBJECT, indent=1))
    file = json_rows.JsonFile(path, "json", "t.json", settings.get("data_field"))
    assert sum(len(each) == path.stat().st_size for each in parsed) == 1
    assert [values["text"] for _, values, _ in file.rows()] == ["fine", "bad"]
