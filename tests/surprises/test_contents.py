"""What a file holds is looked at, whatever its name says: nothing is lost, and what is no text is named."""

from __future__ import annotations

import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from preparing import GOOD, predicted, texts_predicted, train
from ringtune.train.contract import UsageError

OBJECTS = [{"text": "fine", "label": "up"}, {"text": "bad", "label": "down"}]


def refused(tmp_path, name: str, content: bytes | str) -> list[str]:
    """Return the messages with which both commands refuse a file."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    messages = []
    for attempt in (lambda: train(tmp_path, path), lambda: texts_predicted(path)):
        with pytest.raises(UsageError) as caught:
            attempt()
        messages.append(str(caught.value))
    assert all(len(each) < 500 for each in messages)
    return messages


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("t.csv", GOOD), ("t.tsv", GOOD.replace(",", "\t")), ("t.jsonl", "\n".join(map(json.dumps, OBJECTS)))],
)
def test_text_of_another_width_is_named_with_the_way_to_convert_it(tmp_path, encoding, name, content):
    for message in refused(tmp_path, name, content.encode(encoding)):
        assert f"it is {encoding[:6].upper()} text" in message and f"iconv -f {encoding[:6].upper()}" in message


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["fine"], "label": ["up"]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (parquet(), "it is a Parquet file"),
        (gzip.compress(GOOD.encode(), mtime=0), "it is compressed by gzip"),
        (b"PK\x03\x04\x14\x00\x06\x00", "it is a zip archive, as Excel's files are"),
        (b"\0" * 100, "it is UTF-16 text, or no text"),
    ],
)
def test_files_of_another_format_under_the_name_of_a_table_are_named(tmp_path, content, words):
    assert all(words in message for message in refused(tmp_path, "t.csv", content))


@pytest.mark.parametrize(
    ("name", "words"), [("t.xlsx", "save it as CSV in UTF-8"), ("t.xls", "as CSV in UTF-8"), ("t.csv.zip", "unpack it")]
)
def test_a_file_of_excel_or_an_archive_is_refused_with_what_to_do(tmp_path, name, words):
    assert all(words in message for message in refused(tmp_path, name, b"PK\x03\x04"))


def test_a_header_and_a_label_in_latin_1_are_named_with_their_bytes_and_lines(tmp_path):
    content = "text,l\xe4bel\nfine,up\n".encode("latin-1")
    assert all("t.csv:1: the header cannot be read: byte 0xe4" in each for each in refused(tmp_path, "t.csv", content))
    (tmp_path / "t.csv").write_bytes("text,label\nfine,\xfcp\nbad,\xe4p\nodd,down\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"t.csv:2: the label .* in column 'label' is not UTF-8"):
        train(tmp_path, tmp_path / "t.csv")
    assert texts_predicted(tmp_path / "t.csv") == ["fine", "bad", "odd"]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbffine\nbad\n")
    assert texts_predicted(tmp_path / "t.txt") == ["fine", "bad"]


def test_a_nul_is_a_character_of_a_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text,label\nfi\0ne,up\nbad,down\n")
    assert texts_predicted(tmp_path / "t.csv") == ["fi\0ne", "bad"]
    assert train(tmp_path, tmp_path / "t.csv").train.num_features == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(OBJECTS) + "\n" + json.dumps(OBJECTS), "there is more behind the array of its 2 rows"),
        (json.dumps(OBJECTS)[:-1] + ",]", "row 3: it is not JSON: Expecting value"),
        (json.dumps(OBJECTS).replace("}, {", "} {"), "row 1: it is not JSON: there is no comma behind it"),
        (json.dumps(OBJECTS)[:-1], "row 2: it is not JSON: the array does not end"),
        (json.dumps(OBJECTS)[:-1] + "\n", "row 2: it is not JSON: the array does not end"),
        ("\n\n", "no row of it is a JSON object"),
        ("[]", "no row of it is a JSON object"),
    ],
)
def test_an_array_is_read_to_its_end_and_nothing_behind_it_is_lost(tmp_path, content, words):
    assert all(words in message for message in refused(tmp_path, "t.json", content))


def test_a_key_that_an_object_has_twice_and_a_number_that_is_endless_are_errors_of_their_rows(tmp_path):
    lines = ['{"text": "a", "text": "b", "label": "up"}', '{"text": "c", "label": ' + "9" * 5000 + "}"]
    for number, words in enumerate(("it has the key 'text' twice", "a number has thousands of digits")):
        path = tmp_path / "t.jsonl"
        path.write_text("\n".join([json.dumps(OBJECTS[0]), lines[number], json.dumps(OBJECTS[1])]))
        with pytest.raises(UsageError, match=f"t.jsonl:2: .*{words}"):
            train(tmp_path, path)
        assert texts_predicted(path) == ["fine", None, "bad"]


def test_a_list_on_the_first_line_is_a_wrong_row_and_not_the_table(tmp_path):
    (tmp_path / "t.jsonl").write_text("[]\n" + "\n".join(map(json.dumps, OBJECTS)))
    assert texts_predicted(tmp_path / "t.jsonl") == [None, "fine", "bad"]
    with pytest.raises(UsageError, match=r"t.jsonl:1: it is \[\], not a JSON object"):
        train(tmp_path, tmp_path / "t.jsonl")


def test_tables_of_arrow_are_read_however_they_were_written(tmp_path):
    table = pa.table({"text": ["fine", "bad"] * 700, "label": ["up", "down"] * 700})
    feather.write_feather(table, tmp_path / "t.feather")
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as stream:
        stream.write_table(table)
    for name in ("t.feather", "stream.arrow", "file.arrow"):
        assert train(tmp_path, tmp_path / name).train.num_features == 1400
        assert texts_predicted(tmp_path / name) == table["text"].to_pylist()
    content = (tmp_path / "file.arrow").read_bytes()
    for broken in (content[:-50], content[: len(content) // 2], b"xxxx"):
        assert all("it cannot be read as arrow" in each for each in refused(tmp_path, "t.arrow", broken))


@pytest.mark.parametrize("kind", ["large_string", "dictionary", "string_view"])
def test_texts_of_every_kind_that_arrow_has_are_texts(tmp_path, kind):
    texts = pa.array(["fine", "bad"])
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(getattr(pa, kind)())
    feather.write_feather(pa.table({"text": texts, "label": texts}), tmp_path / "t.feather", compression="uncompressed")
    assert texts_predicted(tmp_path / "t.feather") == ["fine", "bad"]
    assert train(tmp_path, tmp_path / "t.feather").task.classes == ("bad", "fine")


def test_categories_that_differ_between_batches_are_kept_as_their_values(tmp_path):
    numbers = pa.chunked_array([pa.array(each).dictionary_encode() for each in ([1, 2], [3, 1])])
    pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "n": numbers}), tmp_path / "t.parquet", row_group_size=2)
    batches, _ = predicted(tmp_path / "t.parquet", keep_columns="n", text_column_names="text")
    assert pa.Table.from_batches(batches)["kept/n"].to_pylist() == [1, 2, 3, 1]


@pytest.mark.parametrize("values", [[["a"], ["b"]], [b"a", b"b"], [1, 2]])
def test_what_is_no_text_is_refused_as_text_and_is_no_label_where_it_is_no_number_or_list(tmp_path, values):
    pq.write_table(pa.table({"text": values, "label": ["up", "down"]}), tmp_path / "t.parquet")
    for attempt in (lambda: train(tmp_path, tmp_path / "t.parquet"), lambda: texts_predicted(tmp_path / "t.parquet")):
        with pytest.raises(UsageError, match="column 'text' holds .*, not text"):
            attempt()
    pq.write_table(pa.table({"text": ["a", "b"], "label": values}), tmp_path / "t.parquet")
    assert texts_predicted(tmp_path / "t.parquet") == ["a", "b"]
    if values[0] == ["a"]:
        assert train(tmp_path, tmp_path / "t.parquet").task.kind == "multi_label"
    elif values != [1, 2]:
        with pytest.raises(UsageError, match="t.parquet: row 1: there is no label in column 'label'"):
            train(tmp_path, tmp_path / "t.parquet")


def test_a_column_without_any_text_gives_rows_with_errors_not_a_refused_file(tmp_path):
    pd.DataFrame({"text": [None, None], "label": ["up", "down"]}).to_parquet(tmp_path / "t.parquet")
    assert texts_predicted(tmp_path / "t.parquet") == [None, None]
    with pytest.raises(UsageError, match="t.parquet: row 1: there is no text in column 'text'"):
        train(tmp_path, tmp_path / "t.parquet")


def test_a_field_of_ten_megabytes_is_read_or_named_and_what_follows_is_not_lost(tmp_path):
    text = "ab " * 3_000_000
    (tmp_path / "t.csv").write_text(f"text,label\n{text},up\nbad,down\n")
    assert texts_predicted(tmp_path / "t.csv") == [text, "bad"]
    (tmp_path / "t.csv").write_text(f"text,label\n{text}{text},up\nbad,down\n")
    assert texts_predicted(tmp_path / "t.csv") == [None, "bad"]
    with pytest.raises(UsageError, match=r"t.csv:2: it cannot be read as csv: field larger than"):
        train(tmp_path, tmp_path / "t.csv")
