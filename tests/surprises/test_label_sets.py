"""Rows with several labels: every form is read as the same labels, and what is none of them is named with its line."""

from __future__ import annotations

import json

import labelled
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from preparing import load, predicted, train
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.task.multilabel import MultiLabel

NAMES = ("blame", "denial", "praise")
COLUMNS = {"label_column_name": ",".join(labelled.LABELS)}


def encoded(found) -> list[list[int]]:
    """Return the labels of the training rows by the names' alphabet."""
    order = [found.task.classes.index(name) for name in NAMES]
    return found.train.feature_columns["labels"][:, order].tolist()


def lines(*labels) -> str:
    return "".join(json.dumps({"text": f"film {n}", "label": each}) + "\n" for n, each in enumerate(labels))


def table(*rows: str, header: str = "text,anger,joy") -> str:
    return "\n".join((header, *rows, ""))


def test_every_form_is_read_as_the_same_labels_and_that_is_reported(tmp_path):
    rows = labelled.draw_rows(60, 1)
    expected = [[int(name in labels) for name in NAMES] for _, labels in rows]
    lists = train(tmp_path, labelled.write_lists(tmp_path / "a.jsonl", 60, 1))
    columns = train(tmp_path, labelled.write_columns(tmp_path / "b.csv", 60, 1), **COLUMNS)
    texts = train(tmp_path, labelled.write_texts(tmp_path / "c.csv", 60, 1), label_separator=";")
    names = [labels for _, labels in rows]
    pq.write_table(pa.table({"text": [text for text, _ in rows], "label": names}), tmp_path / "d.parquet")
    parquet = train(tmp_path, tmp_path / "d.parquet")
    declared = Features({"text": Value("string"), "label": List(ClassLabel(names=["praise", "blame", "denial"]))})
    numbers = [[["praise", "blame", "denial"].index(name) for name in labels] for labels in names]
    content = {"text": [text for text, _ in rows], "label": numbers}
    Dataset.from_dict(content, features=declared).save_to_disk(tmp_path / "saved")
    saved = train(tmp_path, tmp_path / "saved")
    for found in (lists, columns, texts, parquet, saved):
        assert encoded(found) == expected
        what = "3 labels, a row has any of them or none"
        assert any(
            f"label: column label, {what}" in each or f"praise, blame, denial, {what}" in each for each in found.report
        )
        assert any(f"{sum(not any(row) for row in expected)} of 60 rows have no label" in each for each in found.report)
    assert lists.task.classes == texts.task.classes == parquet.task.classes == NAMES
    assert columns.task.classes == saved.task.classes == ("praise", "blame", "denial")
    assert lists.task.kind == "multi_label" and "labels: columns praise, blame, denial" in columns.report[0]


def test_numbers_are_names_in_the_order_of_their_values_and_a_label_twice_is_there(tmp_path):
    found = load(tmp_path, lines([10, 9], ["9", "9"], []), name="t.jsonl")
    assert found.task.classes == ("9", "10")
    assert found.train.feature_columns["labels"].tolist() == [[1, 1], [1, 0], [0, 0]]


def test_columns_hold_zero_and_one_in_every_spelling(tmp_path):
    content = table("a,0,1", "b,true,False", "c,1.0,0.0", "d, TRUE ,0")
    found = load(tmp_path, content, label_column_name="anger, joy")
    assert found.train.feature_columns["labels"].tolist() == [[0, 1], [1, 0], [1, 0], [1, 0]]
    types = {"text": ["a", "b"], "anger": [True, False], "joy": [0.0, 1.0]}
    pq.write_table(pa.table(types), tmp_path / "t.parquet")
    found = train(tmp_path, tmp_path / "t.parquet", label_column_name="anger,joy")
    assert found.train.feature_columns["labels"].tolist() == [[1, 0], [0, 1]]


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path):
    content = 'text,"a,b"\nfine,up\nbad,down\n'
    assert load(tmp_path, content, label_column_name="a,b").task.classes == ("down", "up")


def test_a_text_without_the_flag_is_one_label(tmp_path):
    assert load(tmp_path, "text,label\na,x;y\nb,x\n").task.classes == ("x", "x;y")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("joy", "t.jsonl:3: column 'label' holds 'joy', not a list of labels"),
        (None, "t.jsonl:3: there is no label in column label; labels in every row, or an empty list"),
        ([None], "t.jsonl:3: the list in column 'label' holds None, neither a text nor a whole number"),
        ([1.5], "t.jsonl:3: the list in column 'label' holds 1.5, neither"),
        ([True], "t.jsonl:3: the list in column 'label' holds True, neither"),
        ([["joy"]], "t.jsonl:3: the list in column 'label' holds ['joy'], neither"),
        ([" "], "t.jsonl:3: an empty label stands in column 'label'"),
        (["x" * 201], "t.jsonl:3: a label in column 'label' has 201 characters, more than 200"),
        (["\ud800"], "t.jsonl:3: the label '\\ud800' in column 'label' is not UTF-8"),
        ({"joy": 1}, "t.jsonl:3: column 'label' holds {'joy': 1}, not a list of labels"),
    ],
)
def test_a_row_whose_list_is_none_is_refused_with_its_line_in_training_and_validation(tmp_path, wrong, message):
    good = lines(["anger"], ["joy"])
    for contents in ((lines(["anger"], ["joy"], wrong), None), (good, lines(["anger"], [], wrong))):
        with pytest.raises(UsageError) as caught:
            load(tmp_path, *contents, name="t.jsonl")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c,2,0", "t.csv:4: column 'anger' holds '2', not 0 or 1"),
        ("c,0,yes", "t.csv:4: column 'joy' holds 'yes', not 0 or 1"),
        ("c,0.5,1", "t.csv:4: column 'anger' holds '0.5', not 0 or 1"),
        ("c,,1", "t.csv:4: column 'anger' holds '', not 0 or 1"),
    ],
)
def test_a_row_that_is_not_zero_or_one_is_refused_with_its_line(tmp_path, row, message):
    for contents in ((table("a,0,1", "b,1,0", row), None), (table("a,0,1"), table("a,0,1", "b,1,0", row))):
        with pytest.raises(UsageError) as caught:
            load(tmp_path, *contents, name="t.csv", label_column_name="anger,joy")
        assert message in str(caught.value)
        assert "0 or 1 in the column of each label" in str(caught.value)


def test_a_missing_value_is_not_the_absence_of_a_label(tmp_path):
    content = lines([]).replace('"label": []', '"anger": 1, "joy": null')
    with pytest.raises(UsageError, match="t.jsonl:1: there is no value in column 'joy'"):
        load(tmp_path, content, name="t.jsonl", label_column_name="anger,joy")
    pq.write_table(pa.table({"text": ["a", "b"], "label": [["x", "y"], None]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t.parquet: row 2: there is no label in column label"):
        train(tmp_path, tmp_path / "t.parquet")


@pytest.mark.parametrize("text", ["x;;y", "x;", ";", " ; x"])
def test_an_empty_label_between_separators_is_refused_with_its_line(tmp_path, text):
    with pytest.raises(UsageError, match="train.csv:3: an empty label stands in column 'label'"):
        load(tmp_path, f"text,label\na,x;y\nb,{text}\n", label_separator=";")


def test_an_unknown_label_of_a_validation_row_is_named_with_its_line(tmp_path):
    with pytest.raises(
        UsageError, match="dev_t.jsonl:2: the label rage does not occur in the training rows; anger, joy"
    ):
        load(tmp_path, lines(["anger"], ["joy"]), lines([], ["joy", "rage"]), name="t.jsonl")


def test_the_labels_of_test_rows_do_not_matter(tmp_path):
    (tmp_path / "test.jsonl").write_text(lines(["rage"], "joy", None, []))
    found = load(tmp_path, lines(["a"], ["b"]), name="t.jsonl", test_file=str(tmp_path / "test.jsonl"))
    assert found.test.num_features == 4


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (lines(["x", "y"]), {"label_separator": ";"}, "--label_separator: .*column 'label' holds lists"),
        (lines(["x", "y"]), {"regression": True}, "--regression: .*a row may have several labels"),
        (lines(["x"], []), {}, "the only label in it is 'x' .*two labels or more"),
        (lines([], []), {}, "no row has a label .*two labels or more"),
        (lines(["x"], [], [7]), {"label_column_name": "lable"}, "there is no column 'lable'"),
        (lines(["x"]), {"label_column_name": "label,mood"}, "there is no column 'mood'"),
        (lines(["x"]), {"label_column_name": "label,label"}, "--label_column_name: .*names 1 columns in 2 places"),
        (lines(["x"]), {"label_column_name": "label,"}, "--label_column_name: .*names 1 columns in 2 places"),
        (
            lines(["x"]),
            {"label_column_name": "label,x", "label_separator": ";"},
            "--label_separator: .*names 2 columns",
        ),
    ],
)
def test_what_cannot_be_labels_is_refused(tmp_path, content, flags, message):
    with pytest.raises(UsageError, match=message):
        load(tmp_path, content, name="t.jsonl", **flags)


def test_files_of_several_forms_are_refused(tmp_path):
    for name, label in (("a.parquet", [["x"], ["y"]]), ("b.parquet", ["x", "y"])):
        pq.write_table(pa.table({"text": ["a", "b"], "label": label}), tmp_path / name)
    with pytest.raises(UsageError, match="column 'label': it holds list<.*string in"):
        train(tmp_path, str(tmp_path / "?.parquet"))


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("lists.jsonl", {}),
        ("columns.csv", {"label_column_name": "praise,blame,denial"}),
        ("texts.csv", {"label_separator": ";"}),
    ],
)
def test_prediction_reads_true_labels_in_any_form_whatever_training_had(tmp_path, name, flags):
    write = {"lists": labelled.write_lists, "columns": labelled.write_columns, "texts": labelled.write_texts}
    path = write[name.split(".")[0]](tmp_path / name, 20, 3)
    task = MultiLabel(None, NAMES)
    settings = PredictConfig("m", str(path), "out.csv", text_column_names="text", **flags)
    source = inputs.open_source(settings, task)
    found = [
        label
        for batch in source.read(inputs.choose_columns(source, settings, task))
        for label in batch["label"].to_pylist()
    ]
    expected = [[int(each in labels) for each in NAMES] for _, labels in labelled.draw_rows(20, 3)]
    assert task.labels(found).tolist() == expected


def test_prediction_with_a_model_of_one_label_a_row_takes_a_list_for_none(tmp_path):
    (tmp_path / "t.jsonl").write_text(lines(["up"]))
    assert predicted(tmp_path / "t.jsonl")[0][0]["label"].to_pylist() == [None]
