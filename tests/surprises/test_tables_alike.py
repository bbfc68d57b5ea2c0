"""Both commands read the same rows of a file, those that a simple reader finds, and no file gives a traceback.

The simple readers are the csv and json modules and Arrow's ``to_pylist``. Of each example training makes its table, and
what is in it is compared with what prediction reads: tokens of the texts, and numbers of the labels.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from examples import few_or, run_examples
from hypothesis import strategies as st
from preparing import Alone, predicted
from ringtune.train import tables
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.stop import StopFlag
from tiny import make_tokenizer
from writers import WRITERS

Rows = list[tuple[Any, Any]]  # text and label

WORDS = ["", " ", "NA", "n/a", "null", "None", "nan", "007", "1", "0", "1.0", "-3", "1e5", "true", "False", "film"]
NASTY = "a1\"',;\t|\n\r \u00e4\u20ac\U0001f600\u2028\x85\x0b\x00\ufeff\\{}[]:"
TEXTS = st.one_of(st.sampled_from(WORDS), st.text(NASTY, max_size=8), st.text(max_size=8))
POOLS = [st.sampled_from(["up", "down"]), st.sampled_from(["0", "1"]), st.sampled_from(WORDS), TEXTS]
LABELS = st.one_of(POOLS)
TABLES = st.sampled_from(POOLS).flatmap(lambda pool: st.lists(st.tuples(TEXTS, pool), min_size=1, max_size=6))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def train(path: Path, tokenizer) -> tables.Tables:
    """Return what training makes of a file."""
    config = TrainConfig("m", train_file=str(path), text_column_names="text", max_seq_length=16)
    with tempfile.TemporaryDirectory() as cache:
        found = tables.prepare(TrainConfig(**{**vars(config), "cache_dir": cache}), tokenizer, Alone(), StopFlag())
        for each in (found.train.token_columns, found.train.feature_columns):
            each.update({name: np.array(values) for name, values in each.items()})  # the files are removed
        return found


def read(path: Path) -> tuple[list[dict[str, Any]], list[pa.RecordBatch]] | None:
    """Return the rows that prediction reads, None if it refuses the file, in a short line."""
    try:
        batches, _ = predicted(path, text_column_names="text")
    except UsageError as error:
        assert len(str(error)) <= 500 + len(str(path))
        return None
    return [row for batch in batches for row in batch.to_pylist()], batches


def check_alike(path: Path, tokenizer) -> list[dict[str, Any]] | None:
    """Check that both commands read a file alike; return the rows that prediction reads, None if it refuses them."""
    found = read(path)
    try:
        trained = train(path, tokenizer)
    except UsageError as error:
        assert len(str(error)) <= 500 + 2 * len(str(path))
        return found and found[0]
    assert found is not None, "training reads what prediction refuses"
    rows, batches = found
    assert [row["error"] for row in rows] == [None] * trained.train.num_features
    several = [trained.task.encode(batch, tokenizer, 16) for batch in batches]
    for name, values in trained.train.token_columns.items():
        assert np.array_equal(values, np.concatenate([each.token_columns[name] for each in several])), name
    labels = np.concatenate([each.feature_columns["labels"] for each in several])
    assert np.array_equal(trained.train.feature_columns["labels"], labels)
    return rows


def label_text(value: Any) -> str | None:
    """Return a label as both commands should have it."""
    is_none = value is None or isinstance(value, (list, dict)) or value != value
    return None if is_none else str(value)


# What libraries write


def csv_rows(path: Path, **how: Any) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        header, *rows = [row for row in csv.reader(stream, **how) if row]
    return [tuple(dict(zip(header, row, strict=True))[name] for name in ("text", "label")) for row in rows]


def objects_rows(objects: list[Any]) -> Rows:
    return [(each.get("text"), each.get("label")) for each in objects]


def file_rows(path: Path) -> Rows:
    """Return the rows of a file by the simplest reader there is."""
    match path.suffix:
        case ".csv":
            return csv_rows(path)
        case ".tsv":
            return csv_rows(path, delimiter="\t")
        case ".json":
            return objects_rows(json.loads(path.read_text(encoding="utf-8-sig")))
        case ".jsonl":
            lines = path.read_bytes().decode("utf-8-sig").split("\n")
            return objects_rows([json.loads(line) for line in lines if line.strip()])
        case ".parquet":
            return objects_rows(pq.read_table(path).to_pylist())
    return objects_rows(pa.feather.read_table(path).to_pylist())


@few_or(2000)
def test_tables_that_libraries_write_are_read_alike(tmp_path, tokenizer, number):
    @run_examples(number, TABLES, st.sampled_from(sorted(WRITERS)))
    def check(rows: Rows, writer: str) -> None:
        ending, write = WRITERS[writer]
        path = tmp_path / f"t{ending}"
        write(pd.DataFrame(rows, columns=["text", "label"]), path)
        try:
            expected = file_rows(path)
        except (ValueError, csv.Error):  # such as a lone CR, which some writers do not quote
            check_alike(path, tokenizer)
            return
        found = check_alike(path, tokenizer)
        if found is None and ending == ".tsv":  # the rule refuses what can be read in two ways
            content = path.read_bytes().decode()
            (quoted, one), (plain, other) = (
                simple_reading(content, quotes=quotes, delimiter="\t") for quotes in (True, False)
            )
            assert one and other and len(quoted) != len(plain)
            return
        assert found is not None and [(row["text/0"], row["label"]) for row in found] == expected


# What people write


def simple_reading(content: str, *, quotes: bool, delimiter: str = ",") -> tuple[list[list[str]], bool]:
    """Return the rows of a CSV file by one rule, and whether all can be read so."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    rows, whole = [], True
    reader = csv.reader(io.StringIO(content, newline=""), quoting=quoting, strict=True, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            row, whole = ["unreadable"], False
        if row:
            rows.append(row)
    return rows, whole and len({len(row) for row in rows}) == 1


FIELDS = st.one_of(TEXTS, st.sampled_from(['"', '""', '"a"', '"a" b', '"a,b"', '"a\nb"', 'a"b', '"a"",', "'a'"]))
LINES = st.lists(st.lists(FIELDS, min_size=0, max_size=3).map(",".join), min_size=0, max_size=6)


@few_or(1500)
def test_csv_files_written_by_hand_are_read_by_the_rule_that_is_documented(tmp_path, tokenizer, number):
    @run_examples(number, LINES, st.sampled_from(["\n", "\r\n", "\n\n"]), st.sampled_from(["", "\ufeff"]))
    def check(lines: list[str], end: str, mark: str) -> None:
        content = "text,label" + end + end.join(lines)
        path = tmp_path / "t.csv"
        path.write_bytes((mark + content).encode())
        readings = [simple_reading(content, quotes=quotes) for quotes in (True, False)]
        rows, _ = next((each for each in readings if each[1]), readings[0])
        found = check_alike(path, tokenizer)
        assert found is not None
        expected = [tuple(row) if len(row) == 2 else (None, None) for row in rows[1:]]
        assert [(row["text/0"], row["label"] if not row["error"] else None) for row in found] == expected


NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.just(-0.0), st.sampled_from([0, 1, 1.0, 0.0, 2.5]))
SCALARS = st.one_of(TEXTS, st.none(), st.booleans(), NUMBERS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2))
OBJECTS = st.fixed_dictionaries({}, optional={"text": TEXTS | VALUES, "label": LABELS | VALUES, "more": VALUES})
BROKEN = st.sampled_from(['{"text": "a"', "text", "[]", '{"text": "a"} x', '{"text": "a", "text": "b"}', "1" * 5000])


@few_or(1000)
@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_json_files_of_any_values_are_read_as_python_reads_them(tmp_path, tokenizer, number, ending):
    @run_examples(number // 2, st.lists(OBJECTS.map(json.dumps) | BROKEN, min_size=1, max_size=5), st.booleans())
    def check(lines: list[str], marked: bool) -> None:
        path = tmp_path / f"t{ending}"
        content = "\n".join(lines) if ending == ".jsonl" else "[" + ",\n".join(lines) + "]"
        path.write_bytes(("\ufeff" * marked + content).encode())
        found = check_alike(path, tokenizer)
        values = [simple_value(line) for line in lines]
        if not any(isinstance(value, dict) and "text" in value for value in values):
            return  # it has no such column
        if ending == ".json" and BAD in values:
            assert found is None
            return
        rows = [value if isinstance(value, dict) else {} for value in values]
        assert [row["text/0"] for row in found] == [text_or_none(row.get("text")) for row in rows]
        labels = [label_text(row.get("label")) for row in rows]
        assert [row.get("label") for row in found if not row["error"]] == [
            label for label, row in zip(labels, found, strict=True) if not row["error"]
        ]


BAD = object()


def simple_value(line: str) -> Any:
    """Return what a line of JSON says, BAD if it says nothing; an object with a key twice says nothing, but is JSON."""

    def one_of_each(pairs: list[tuple[str, Any]]) -> Any:
        return dict(pairs) if len(dict(pairs)) == len(pairs) else "a key twice"

    try:
        return json.loads(line, object_pairs_hook=one_of_each)
    except ValueError:
        return BAD


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


COLUMNS = st.one_of(
    *(
        st.lists(values | st.none(), min_size=2, max_size=6)
        for values in (LABELS, st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.just(b"x"), st.dates())
    )
)


@few_or(500)
def test_label_columns_of_any_type_are_read_as_arrow_reads_them(tmp_path, tokenizer, number):
    @run_examples(number, COLUMNS, st.sampled_from(["parquet", "categories", "feather"]))
    def check(labels: list[Any], how: str) -> None:
        column = pa.array(labels)
        if how == "categories" and not pa.types.is_null(column.type):  # Arrow writes no categories of nothing
            column = column.dictionary_encode()
        table = pa.table({"text": [f"film {row}" for row in range(len(labels))], "label": column})
        path = tmp_path / ("t.feather" if how == "feather" else "t.parquet")
        (pa.feather.write_feather if how == "feather" else pq.write_table)(table, path)
        found = check_alike(path, tokenizer)
        assert found is not None
        expected = [None if isinstance(label, bytes) else label_text(label) for _, label in file_rows(path)]
        assert [row["label"] for row in found] == expected
