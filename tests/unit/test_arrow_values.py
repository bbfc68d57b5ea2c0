"""Columns of Arrow as Python's values: what `to_pylist` gives, and texts whose bytes are not UTF-8."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import arrow_rows, arrow_values
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.predict import run, writer
from ringtune.train.predict.config import PredictConfig
from ringtune.train.shapes import SPANS, WORDS
from ringtune.train.task.regression import Regression

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


FAR = pa.array([1, None, 10**8], pa.date32())
SHOWN_FAR = [datetime.date(1970, 1, 2), None, "<value out of range: 100000000>"]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (FAR, SHOWN_FAR),
        (pa.array([10**15], pa.timestamp("s")), ["<value out of range: 1000000000000000>"]),
        (pa.array([2**62, 60], pa.duration("s")), ["4611686018427387904", datetime.timedelta(minutes=1)]),
        (pa.array([10**9, None], pa.timestamp("ms", "Mars/Phobos")), ["1970-01-12 13:46:40.000Z", None]),
        (in_lists(FAR), [[each] for each in SHOWN_FAR]),
        (pa.ListViewArray.from_arrays([0, 1, 2], [1, 1, 1], in_lists(FAR)), [[[each]] for each in SHOWN_FAR]),
        (pa.StructArray.from_arrays([FAR], ["a"]), [{"a": each} for each in SHOWN_FAR]),
        (
            pa.MapArray.from_arrays([0, 1, 3], pa.array(list("xyz")), FAR),
            [[("x", SHOWN_FAR[0])], [("y", None), ("z", SHOWN_FAR[2])]],
        ),
        (pa.DictionaryArray.from_arrays(pa.array([2, 0]), FAR), [SHOWN_FAR[2], SHOWN_FAR[0]]),
        (pa.UnionArray.from_sparse(pa.array([0, 0, 0], pa.int8()), [FAR]), SHOWN_FAR),
        (pa.MapArray.from_arrays([0, 1], BAD[1:2], BAD[1:2]), [[(SHOWN[1], SHOWN[1])]]),
    ],
)
def test_what_python_cannot_hold_is_a_text(column, shown):
    assert arrow_values.values(column) == arrow_values.held(column) == shown


def read_x(folder, column, **columns):
    rows = pa.table({"text": ["x"] * len(column), "x": column})
    path = folder / "rows.arrow"
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, rows.schema) as file:
        file.write_table(rows)
    (batch,) = arrow_rows.open_table(path, "arrow", "rows.arrow", "").read(Columns(("text",), **columns))
    return batch


def test_run_ends_are_read_as_their_values(tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    batch = read_x(tmp_path, runs, label="x", kept=("x",), sliced=("x",))
    for name in ("label", "kept/x", "slice/x"):
        assert batch.take([0, 2]).column(name).to_pylist() == ["a", "b"]
    with pytest.raises(UsageError, match=r"rows.arrow: column 'x' holds struct<a: run_end_encoded.*cannot be read"):
        read_x(tmp_path, pa.StructArray.from_arrays([runs], ["a"]), label=None, kept=("x",))


VIEW = pa.string_view()


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([["a"], None, ["b", None]], pa.list_(VIEW)),
        ([["a"], None, ["b", None]], pa.large_list(VIEW)),
        ([["a", "b"], None, ["c", None]], pa.list_(VIEW, 2)),
        ([[["a"]], None, [["b"], None]], pa.list_(pa.list_(VIEW))),
        ([{"l": "a", "n": 1}, None], pa.struct([("l", VIEW), ("n", pa.int64())])),
        ([[{"l": "a", "n": 1}], None], pa.list_(pa.struct([("l", VIEW), ("n", pa.int64())]))),
    ],
)
def test_views_of_texts_in_lists_are_read_and_kept(tmp_path, rows, kind):
    batch = read_x(tmp_path, pa.array(rows, kind), label=None, kept=("x",))
    assert batch.column("kept/x").take(list(range(len(rows)))).to_pylist() == rows
    source = arrow_rows.open_table(tmp_path / "rows.arrow", "arrow", "rows.arrow", "")
    assert source.types["x"] == batch.schema.field("kept/x").type
    writer.refuse_unwritable(batch, ".parquet", "rows.arrow")


def test_bytes_that_are_no_text_are_kept_in_views_too():
    plain = arrow_values.plain(in_lists(BAD.cast(VIEW)))
    assert arrow_values.values(plain) == [[each] for each in SHOWN]


def test_what_parquet_cannot_hold_is_refused_before_it_is_predicted(tmp_path):
    for column, words in (
        (pa.array([{}], pa.struct([])), "struct<>, which Parquet cannot hold"),
        (pa.array([2**60], pa.timestamp("s")), r"timestamp\[s\], which Parquet cannot hold"),
    ):
        batch = read_x(tmp_path, column, label=None, kept=("x",))
        writer.refuse_unwritable(batch, ".jsonl", "rows.arrow")
        with pytest.raises(UsageError, match=f"rows.arrow: column 'x' holds {words}"):
            writer.refuse_unwritable(batch, ".parquet", "rows.arrow")
    writer.refuse_unwritable(read_x(tmp_path, FAR, label=None, kept=("x",)), ".parquet", "rows.arrow")


def test_a_dry_run_refuses_it_too(tmp_path):
    read_x(tmp_path, pa.array([{}], pa.struct([])), label=None)
    config = PredictConfig("m", str(tmp_path / "rows.arrow"), "o.parquet", text_column_names="text", keep_columns="x")
    predictor = SimpleNamespace(task=Regression(None), describe_columns=lambda *_: "")
    with pytest.raises(UsageError, match=r"rows.arrow: column 'x' holds struct<>, which Parquet cannot hold"):
        run._check_input(config, predictor, [].append)
