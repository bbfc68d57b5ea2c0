"""Scores by slice: which rows make a slice, how far slices lie apart, and the bound on it."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ringtune.train import arrow_rows, config, gap, reader, slices
from ringtune.train.columns import Columns
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, UsageError
from ringtune.train.files import Files
from ringtune.train.predict import config as predicting
from ringtune.train.slices import ColumnScores
from ringtune.train.source import Place, slice_values

FOUND = ColumnScores(
    "language",
    {
        "de": {"accuracy": 0.5, "roc_auc": math.nan, "num_rows": 4},
        "en": {"accuracy": 0.875, "roc_auc": 0.9, "num_rows": 8},
        "fr": {"accuracy": 0.75, "roc_auc": math.nan, "num_rows": 2},
    },
)

INFINITE = ColumnScores("x", {each: {"roc_auc": math.inf, "num_rows": 1} for each in "ab"})


def columns_of(*values):
    halves = [values[: len(values) // 2], values[len(values) // 2 :]]
    found = [slice_values(enumerate(half), "language", Place("dev.csv", ":")) for half in halves]
    batches = [pa.RecordBatch.from_pydict({"slice/language": each, "line": range(len(each))}) for each in found]
    return slices.columns_of(batches, "dev.csv")


@pytest.mark.parametrize("value", [[], ["en"], {"a": 1}, b"en"])
def test_a_list_an_object_and_bytes_part_no_rows(tmp_path, value):
    with pytest.raises(UsageError, match=r"dev.csv:1: column 'language' holds .*, which is no group of rows"):
        columns_of("en", None, "de", value)
    rows = [{"text": "a", "group": "x", "label": "p"}, {"text": "b", "group": value, "label": "q"}]
    columns = Columns(("text",), "label", sliced=("group",))
    pq.write_table(pa.Table.from_pylist([{**each, "group": value} for each in rows]), tmp_path / "t.parquet")
    source = arrow_rows.open_table(tmp_path / "t.parquet", "parquet", "t.parquet", "")
    with pytest.raises(UsageError, match=r"t.parquet: column 'group' holds (list|struct|binary)"):
        list(source.read(columns))
    if not isinstance(value, bytes):
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        source = reader.open_files(Files("t.jsonl", "jsonl", (tmp_path / "t.jsonl",)))
        with pytest.raises(UsageError, match=r"t.jsonl:2: column 'group' holds [\[{]"):
            list(source.read(columns))


def test_rows_of_one_value_are_a_slice_in_whatever_batch_they_come():
    (column,) = columns_of("en", " de ", None, "en", "", "de", 7, True)
    assert column.values == ("7", "True", "de", "en", slices.NO_VALUE)
    rows = {value: found.tolist() for value, found in column.rows().items()}
    assert rows == {"7": [6], "True": [7], "de": [1, 5], "en": [0, 3], slices.NO_VALUE: [2, 4]}
    (again,) = slices.from_bytes(slices.to_bytes([column]))
    assert (again.name, again.values, again.codes.tolist()) == ("language", column.values, column.codes.tolist())


def test_a_column_of_too_many_values_is_refused():
    with pytest.raises(UsageError, match="it has 101 different values in dev.csv"):
        columns_of(*range(101))
    assert len(columns_of(*range(100))[0].values) == 100


def test_the_gap_is_between_the_highest_and_the_lowest_score_that_is_defined():
    assert FOUND.gaps() == {"accuracy": 0.375}  # one slice alone has a roc_auc: nothing to compare
    expected = "accuracy by language: de 0.5000 (4 rows), fr 0.7500 (2 rows), en 0.8750 (8 rows); gap 0.3750"
    assert FOUND.line("accuracy") == expected
    assert FOUND.line("roc_auc") == "roc_auc by language: en 0.9000 (8 rows)"


def test_scores_by_slice_survive_a_file():
    content = json.loads(json.dumps(FOUND.as_json(), allow_nan=False))
    again = ColumnScores.from_json(content)
    assert again.gaps() == FOUND.gaps() and again.as_json() == FOUND.as_json()


def test_slices_are_scored_by_the_rows_they_have():
    column = columns_of("a", "b", "a", "a")[0]
    found = slices.by_column([column], lambda rows: {"first": float(rows[0]), "num_rows": len(rows)}, "_mm")[0]
    assert found.column == "language_mm"
    assert found.scores == {"a": {"first": 0.0, "num_rows": 3}, "b": {"first": 1.0, "num_rows": 1}}
    assert slices.by_column([column], lambda rows: {} if 0 in rows else {"x": 1.0})[0].scores == {"b": {"x": 1.0}}


@pytest.mark.parametrize(
    ("max_gap", "code"),
    [(None, EXIT_FINISHED), ("accuracy=0.375", EXIT_FINISHED), ("accuracy=0.37", EXIT_FAILED)],
)
def test_a_gap_above_its_bound_fails(max_gap, code, tmp_path):
    lines: list[str] = []
    assert slices.judge([FOUND], max_gap, lines.append) == code
    assert bool(lines) == (code == EXIT_FAILED)
    if lines:
        assert lines[0].startswith("--max_gap accuracy=0.37 is exceeded: accuracy by language: de 0.5000")
    (tmp_path / "finished.json").write_text(json.dumps({"slices": [FOUND.as_json()]}))
    assert slices.judge_finished(tmp_path, max_gap, lines.append) == code


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([FOUND], "cannot be judged: it is defined in 1 of 3 slices of language, and a gap is between two"),
        ([ColumnScores("x", {"a": {"accuracy": 1.0}})], "cannot be judged: it is defined in 0 of 1 slices of x"),
        ([INFINITE], "2 of 2 slices of x, and of them not all are finite"),
        ([], "cannot be judged: there are no slices"),
    ],
)
def test_a_bound_that_cannot_be_judged_fails_as_one_that_is_exceeded(found, reason):
    lines: list[str] = []
    assert slices.judge(found, "roc_auc=9", lines.append) == EXIT_FAILED
    assert len(lines) == 1 and lines[0].startswith("--max_gap roc_auc=9 ") and reason in lines[0]
    assert slices.judge(found, None, lines.append) == EXIT_FINISHED and len(lines) == 1


def test_a_bound_on_rows_that_cannot_have_a_gap_is_refused():
    two, one = columns_of("a", "b"), columns_of("a", "a")
    slices.require_comparable({"": two, "mm": two}, "accuracy=0.1")
    slices.require_comparable({"": one}, None)
    with pytest.raises(UsageError, match="all validation rows have the same value of language: a"):
        slices.require_comparable({"": two, "mm": one}, "accuracy=0.1")
    with pytest.raises(UsageError, match="there are no validation rows"):
        slices.require_comparable({}, "accuracy=0.1")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"slice_by": ","}, "--slice_by ,: it names nothing"),
        ({"slice_by": ",", "max_gap": "accuracy=0"}, "--slice_by ,: it names nothing"),
        ({"slice_by": "lang, lang"}, "--slice_by lang, lang: it names lang twice"),
        ({"metrics": " ,"}, "it names nothing"),
        ({"freeze": ","}, "it names nothing"),
        ({"slice_by": "lang", "max_gap": ","}, "it names nothing"),
        ({"slice_by": "lang", "max_gap": "f1=1,f1=2"}, "--max_gap f1=2: f1 is named twice"),
    ],
)
def test_lists_without_names_and_names_given_twice_are_refused(flags, reason):
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    with pytest.raises(UsageError, match=reason):
        config.parse(["--model_name_or_path", "m", "--train_file", "x", *words])
    if flags.keys() <= {"slice_by", "metrics"}:
        with pytest.raises(UsageError, match=reason):
            predicting.parse(["--model_name_or_path", "m", "--input", "x", "--output", "o.csv", *words])


def test_a_run_that_finished_without_a_bound_is_not_taken_for_one_within_it(tmp_path):
    (tmp_path / "finished.json").write_text(json.dumps({"step": 3}))
    assert slices.judge_finished(tmp_path, None, print) == EXIT_FINISHED
    with pytest.raises(UsageError, match="finished without it"):
        slices.judge_finished(tmp_path, "accuracy=0.1", print)


@pytest.mark.parametrize("wrong", ["accuracy", "accuracy=", "accuracy=-1", "accuracy=nan", "=", "accuracy=x"])
def test_what_is_no_bound_is_refused(wrong):
    with pytest.raises(UsageError, match="it is no bound"):
        gap.bounds(wrong)


def test_a_bound_without_slices_is_refused():
    with pytest.raises(UsageError, match="there are no slices to compare"):
        config.parse(["--model_name_or_path", "m", "--train_file", "x", "--max_gap", "accuracy=0.1"])


def test_a_bound_on_what_is_no_score_is_refused():
    assert gap.bounds("accuracy=0.1, f1=0") == {"accuracy": 0.1, "f1": 0.0}
    with pytest.raises(UsageError, match="there is no score f2"):
        gap.require_known({"f2": 0.1}, ["f1"])


def test_a_score_that_only_some_slices_have_has_a_gap_among_those():
    """Of questions, those of a title where each has an answer have no scores of questions without one."""
    lacking = {"f1": 0.5, "num_rows": 4}
    has_it = {"f1": 0.25, "no_answer_f1": 0.5, "num_rows": 2}
    found = ColumnScores("title", {"a": lacking, "b": has_it, "c": {**has_it, "no_answer_f1": 0.75}})
    assert found.gaps() == {"f1": 0.25, "no_answer_f1": 0.25}
    assert found.line("no_answer_f1") == "no_answer_f1 by title: b 0.5000 (2 rows), c 0.7500 (2 rows); gap 0.2500"
