"""Columns of Arrow as Python's values: what `to_pylist` gives, and texts whose bytes are not UTF-8."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import arrow_rows, arrow_values
from ringtune.train.columns import Columns
from ringtune.train.shapes import SPANS, WORDS

TEXTS = st.none() | st.text(max_size=4)
ROW = st.none() | st.fixed_dictionaries({"a": TEXTS, "b": st.none() | st.lists(TEXTS | st.none(), max_size=3)})
TYPE = pa.struct([("a", pa.string()), ("b", pa.list_(pa.string()))])
BAD = pa.StringArray.from_buffers(
    3, pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0])), pa.py_buffer(b"ab\xff\xfecd")
)
SHOWN = ["ab", "\udcff\udcfe", "cd"]


def in_lists(inner: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(len(inner) + 1), pa.int32()), inner)


@given(rows=st.lists(st.none() | st.lists(ROW, max_size=3), max_size=6), start=st.integers(0, 3))
def test_values_are_those_of_arrow(rows, start):
    for kind in (pa.list_(TYPE), pa.large_list(TYPE)):
        column = pa.array(rows, kind)[start:]
        assert arrow_values.values(column) == column.to_pylist()
        assert arrow_values.cleaned(column) is column


def test_lists_of_one_length_and_numbers_too():
    column = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert arrow_values.values(column) == column.to_pylist()
    assert arrow_values.values(pa.array([1.5, None])) == [1.5, None]
    assert arrow_values.values(pa.array(["x", None, "x"]).dictionary_encode()) == ["x", None, "x"]


def test_structs_without_fields_too():
    column = pa.array([{}, None, {}], pa.struct([]))
    assert arrow_values.values(column) == column.to_pylist() == [{}, None, {}]


def test_bytes_that_are_no_text_are_kept_within_lists_and_structs():
    struct = pa.StructArray.from_arrays([BAD, pa.array([1, 2, 3])], ["a", "n"])
    assert arrow_values.values(BAD) == SHOWN
    assert arrow_values.values(in_lists(BAD)) == [[each] for each in SHOWN]
    assert arrow_values.values(in_lists(struct)) == [[{"a": each, "n": n}] for n, each in enumerate(SHOWN, start=1)]
    assert arrow_values.cleaned(in_lists(struct)).to_pylist()[1] == [{"a": "??", "n": 2}]


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ({"t": BAD, "l": "abc"}, Columns(("t",), "l"), "byte 0xff in column 't' is not UTF-8"),
        (
            {"t": in_lists(BAD), "l": [["O"]] * 3},
            Columns(("t",), "l", form=WORDS),
            "byte 0xff in column 't' is not UTF-8",
        ),
        (
            {
                "t": list("xyz"),
                "l": in_lists(
                    pa.StructArray.from_arrays([pa.array([0] * 3), pa.array([1] * 3), BAD], ["start", "end", "label"])
                ),
            },
            Columns(("t",), "l", form=SPANS),
            "the entity 0:1 has the label '\\udcff\\udcfe'",
        ),
    ],
)
def test_a_row_with_them_is_named_and_the_others_are_usable(tmp_path, table, columns, words):
    arrays = {name: each if isinstance(each, pa.Array) else pa.array(list(each)) for name, each in table.items()}
    pq.write_table(pa.table(arrays), tmp_path / "rows.parquet")
    source = arrow_rows.open_table(tmp_path / "rows.parquet", "parquet", "rows.parquet", "")
    (batch,) = source.read(columns)
    errors = batch.column("error").to_pylist()
    assert errors[0] is None and errors[2] is None and words in errors[1]


def test_kept_and_labelled_lists_have_question_marks(tmp_path):
    pq.write_table(pa.table({"t": list("xyz"), "l": list("abc"), "k": in_lists(BAD)}), tmp_path / "rows.parquet")
    source = arrow_rows.open_table(tmp_path / "rows.parquet", "parquet", "rows.parquet", "")
    (batch,) = source.read(Columns(("t",), "l", kept=("k",)))
    assert batch.column("kept/k").to_pylist() == [["ab"], ["??"], ["cd"]]
