"""Rows of a context with choices are read from every format alike, or refused by file and line."""

from __future__ import annotations

import csv
import json

import choosing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import load, train
from ringtune.train import config as settings_module
from ringtune.train import data
from ringtune.train.contract import UsageError
from ringtune.train.task import choice_labels
from ringtune.train.task.choices import CHOICE_LENGTHS

LISTS = '{"question": "a", "choices": ["b", "c", "d"], "label": 0}\n'
SWAG = "sent1,sent2,ending0,ending1,ending2,label\na film,it is,good,bad,odd,0\n"
COLUMNS = "context,x,y,z,label\na film,good,bad,odd,0\n"
NAMED = {"task": "multiple_choice", "text_column_names": "context,x,y,z"}


def lists(choices: object, label: object = 0, question: object = "a") -> str:
    return LISTS + json.dumps({"question": question, "choices": choices, "label": label}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("t.jsonl", lists("b"), {}, "t.jsonl:2: column 'choices' holds 'b', not a list of choices"),
        ("t.jsonl", lists(["b", 3]), {}, "t.jsonl:2: column 'choices' holds 3, not text"),
        ("t.jsonl", lists(["b", "\ud800"]), {}, "t.jsonl:2: half a character"),
        ("t.jsonl", lists([]), {}, "t.jsonl:2: it has no choices, and needs two or more"),
        ("t.jsonl", lists(["b", None, " "]), {}, "t.jsonl:2: it has 1 choice, and needs two or more"),
        ("t.jsonl", lists(["b", "c"], None), {}, "t.jsonl:2: there is no label in column 'label'"),
        ("t.jsonl", lists(["b", "c"], [1]), {}, "t.jsonl:2: there is no label in column 'label'"),
        ("t.jsonl", lists(["b", "c"], question=None), {}, "t.jsonl:2: there is no text in column 'question'"),
        ("t.jsonl", lists(["b", "c"], 2), {}, "t.jsonl:2: the label '2' in column 'label' names none of its 2 choices"),
        ("t.jsonl", lists(["b", None, "c"], 1), {}, "names none of its 3 choices, of which 1 are missing"),
        ("t.jsonl", lists(["b", "c"], -1), {}, "t.jsonl:2: the label '-1' in column 'label' names none"),
        ("t.jsonl", lists(["b", "c"], "B"), {}, "t.jsonl:2: the label 'B' in column 'label' names none"),
        ("t.jsonl", lists(["b", "c"], 0.5), {}, "t.jsonl:2: the label '0.5' in column 'label' names none"),
        ("t.csv", SWAG + "a,b,c\n", {}, "t.csv:3: "),
        ("t.csv", SWAG + "a,b,c,,,0\n", {}, "t.csv:3: it has 1 choice, and needs two or more"),
        ("t.csv", SWAG + "a,b,c,,d,1\n", {}, "t.csv:3: the label '1' in column 'label' names none of its 3 choices"),
        ("t.csv", SWAG, {"regression": True}, "--regression: "),
        ("t.csv", SWAG, {"tag_scheme": "iob1"}, "--tag_scheme: "),
        ("t.csv", SWAG, {"label_separator": ";"}, "--label_separator: "),
        ("t.csv", SWAG, {"task_name": "rte"}, "--task_name: "),
        ("t.csv", "text,label\na,b\nc,d\n", {"choice_labels": "letters"}, "--choice_labels: "),
        ("t.csv", "text,label\na,b\nc,d\n", {"task": "multiple_choice"}, "has no context with choices by names that"),
        ("t.csv", COLUMNS, {"task": "multiple_choice"}, "has no context with choices by names that are known"),
        ("t.csv", COLUMNS, {"text_column_names": "context,x,y,z"}, "--task multiple_choice for a context and its ch"),
        ("t.csv", COLUMNS, {**NAMED, "text_column_names": "context,x"}, "context, x has 1 column(s) of choices"),
        ("t.csv", COLUMNS, {**NAMED, "text_column_names": "context,x,x"}, "a name is empty or stands there twice"),
        ("t.csv", COLUMNS, {**NAMED, "text_column_names": "context,x,w"}, "t.csv: there is no column 'w'"),
        ("t.jsonl", LISTS, {"text_column_names": "choices,question"}, None),
        ("t.jsonl", LISTS, {**NAMED, "text_column_names": "choices,question"}, "choices of choices, question hold li"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, name, content, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content, name=name, **settings)
    assert "\n" not in str(caught.value) and (message or "choices") in str(caught.value)


def swag(*rows: tuple[str, str], choices: str = "x,y,z") -> str:
    """Return rows of SWAG's columns: choices and label of each."""
    head = "sent1,sent2,ending0,ending1,ending2,label\n"
    return head + "".join(f"a,b,{choices},{label}\n" for choices, label in rows)


@pytest.mark.parametrize(
    ("labels", "settings", "numbers", "scheme"),
    [
        ("0 2 1", {}, [0, 2, 1], "from_0"),
        ("1 2 1", {}, [1, 2, 1], "from_0"),
        ("0.0 2.0", {}, [0, 2], "from_0"),
        ("1 3 2", {"choice_labels": "from_1"}, [0, 2, 1], "from_1"),
        ("A c B", {}, [0, 2, 1], "letters"),
        ("x z y", {}, [0, 2, 1], "texts"),
    ],
)
def test_labels_are_numbers_letters_or_texts(tmp_path, labels, settings, numbers, scheme):
    found = load(tmp_path, swag(*(("x,y,z", each) for each in labels.split())), name="t.csv", **settings)
    assert found.train.feature_columns["labels"].tolist() == numbers
    assert found.task.labels_are == scheme and choice_labels.WORDS[scheme] in found.report[0]
    assert any("no label is 0" in line for line in found.report) == (labels == "1 2 1")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (["x,y,z 1", "x,y,z 3"], {}, r"t.csv:3: .*no label is 0.*--choice_labels from_1"),
        (["x,y,z 0", "x,y,z 3"], {}, r"t.csv:3: the label '3' in column 'label' names none of its 3 choices"),
        (["2,0,1 0"], {}, r"t.csv:2: the label '0' names one choice as numbers from 0, another as texts.*from_0 or"),
        (["B,A,x A"], {}, r"t.csv:2: the label 'A' names one choice as letters, another as texts"),
        (["xx,xx,y xx"], {}, r"t.csv:2: the label 'xx' in column 'label' is the text of 2 of its choices"),
        (["x,y,z 7"], {}, r"t.csv:2: the label '7' in column 'label' names none of its 3 choices \(numbers from 0\)"),
        (["x,y,z x", "x,y,z w"], {}, r"t.csv:3: the label 'w' in column 'label' names none"),
        (["x,y,z 0"], {"choice_labels": "from_1"}, r"t.csv:2: .*names none of its 3 choices \(numbers from 1\)"),
    ],
)
def test_labels_with_two_readings_or_none_are_refused(tmp_path, rows, settings, message):
    with pytest.raises(UsageError, match=message):
        load(tmp_path, swag(*(each.split() for each in rows)), name="t.csv", **settings)


def test_readings_that_agree_in_every_row_are_one(tmp_path):
    found = load(tmp_path, swag(("0,1,2", "1"), ("0,1,2", "2")), name="t.csv")
    assert found.train.feature_columns["labels"].tolist() == [1, 2] and found.task.labels_are == "from_0"


def test_labels_of_other_splits_are_read_as_those_of_the_training_rows(tmp_path):
    rows = swag(("x,y,z", "B"))
    with pytest.raises(UsageError, match=r"dev_t.csv:2: the label '1' names none of the row's choices; .*letters"):
        load(tmp_path, rows, swag(("x,y,z", "1")), name="t.csv")
    with pytest.raises(UsageError, match=r"dev_t.csv:2: there is no label"):
        load(tmp_path, rows, swag(("x,y,z", "")), name="t.csv")


def content_of(found) -> list[list[int]]:
    """Return what a model reads and is to learn."""
    features = found.train
    choices = features.feature_columns[CHOICE_LENGTHS]
    return [features.token_columns["input_ids"].tolist(), choices.tolist(), features.feature_columns["labels"].tolist()]


def test_every_format_gives_the_same_features(tmp_path):
    first = train(tmp_path, choosing.write_swag(tmp_path / "t.csv", 30, 1))
    assert first.report[0].endswith(
        "context: column sent1; choices: columns ending0, ending1, ending2, ending3, each behind column sent2; "
        "label: column label, one of 4 choices, numbers from 0; not read: id"
    )
    asked = train(
        tmp_path,
        tmp_path / "t.csv",
        text_column_names="sent1,sent2,ending0,ending1,ending2,ending3",
        task="multiple_choice",
    )
    assert content_of(asked) == content_of(first)
    choosing.write_lists(tmp_path / "t.jsonl", 30, 1)
    pq.write_table(
        pa.Table.from_pylist(list(map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines()))),
        tmp_path / "t.parquet",
    )
    for name in ("t.jsonl", "t.parquet"):
        found = train(tmp_path, tmp_path / name)
        assert content_of(found) == content_of(first)
        assert "context: column article; choices: column choices, each behind column question" in found.report[0]
    letters = train(
        tmp_path,
        choosing.write_columns(tmp_path / "c.csv", 30, 1),
        task="multiple_choice",
        text_column_names="context,choice_a,choice_b,choice_c,choice_d",
        label_column_name="answer",
    )
    assert content_of(letters) == content_of(first) and letters.task.labels_are == "letters"


def test_declared_classes_of_a_data_set_are_numbers_of_choices(tmp_path):
    import datasets

    names = datasets.ClassLabel(names=["0", "1", "2"])
    kinds = {name: datasets.Value("string") for name in ("sent1", "sent2", "ending0", "ending1", "ending2")}
    rows = {**{name: ["a", "b"] for name in kinds}, "label": [2, 0]}
    features = datasets.Features({**kinds, "label": names})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    assert train(tmp_path, tmp_path / "set").train.feature_columns["labels"].tolist() == [2, 0]


def test_missing_choices_have_no_tokens_and_the_longest_row_of_any_split_decides_the_width(tmp_path):
    rows = lists(["b", None, "c"], 2) + lists(["b", "c"], 1)[len(LISTS) :]
    found = load(tmp_path, rows, lists(["b"] * 5, 4), name="t.jsonl")
    assert found.task.num_choices == 5
    assert (found.train.feature_columns[CHOICE_LENGTHS] > 0).tolist() == [
        [True, True, True, False, False],
        [True, False, True, False, False],
        [True, True, False, False, False],
    ]


def test_rows_with_a_choice_that_is_cut_are_counted_with_its_length(tmp_path):
    long = " ".join(["film"] * 30)
    found = load(tmp_path, swag((f"{long},y,{long}", "1"), ("x,y,z", "2")), name="t.csv")
    assert any("1 of 2 rows have more than 16 tokens and are cut; the longest has 35" in each for each in found.report)
    assert found.train.feature_columns[CHOICE_LENGTHS].max() == 16


def test_a_context_with_other_choices_is_another_row(tmp_path):
    found = load(tmp_path, swag(("x,y,z", "0"), ("x,y,w", "1")), swag(("x,y,z", "0"), ("x,y,v", "0")), name="t.csv")
    assert any("1 of 2 rows are training rows as well" in each for each in found.report)


@pytest.mark.parametrize(
    ("row", "settings", "kind"),
    [
        ({"question": "a", "choices": ["b", "c"], "label": 0}, {}, "multiple_choice"),
        ({"question": "a", "context": "e", "choices": ["b", "c"], "label": 0}, {}, "classification"),
        ({"text": "a", "choices": ["b", "c"], "label": 0}, {}, "classification"),
        ({"text": "a", "choices": ["b", "c"], "label": 0}, {"text_column_names": "text,choices"}, "multiple_choice"),
        (
            {"question": "a", "context": "e", "choices": ["b", "c"], "label": 0},
            {"task": "multiple_choice"},
            "multiple_choice",
        ),
    ],
)
def test_what_could_be_read_before_is_read_as_before(tmp_path, row, settings, kind):
    rows = "".join(json.dumps({**row, "label": label}) + "\n" for label in (0, 1))
    assert load(tmp_path, rows, name="t.jsonl", **settings).task.kind == kind


def test_columns_with_two_readings_are_asked_for(tmp_path):
    row = {"context": "a", "premise": "b", "choices": ["b", "c"], "label": 0}
    with pytest.raises(UsageError, match="text_column_names context,choices or --text_column_names premise,choices"):
        load(tmp_path, json.dumps(row) + "\n", name="t.jsonl", task="multiple_choice")


def test_slices_of_a_table_are_those_of_its_column(tmp_path):
    path = choosing.write_swag(tmp_path / "t.csv", 12, 1)
    with path.open(newline="") as stream:
        rows = [{**row, "group": "ab"[number % 2]} for number, row in enumerate(csv.DictReader(stream))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = train(tmp_path, tmp_path / "t.parquet", validation_file=str(tmp_path / "t.parquet"), slice_by="group")
    (column,) = found.slices[""]
    assert column.values == ("a", "b") and np.bincount(column.codes).tolist() == [6, 6]


def test_a_new_setting_does_not_change_the_digest_of_runs_without_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\nfine,up\nbad,down\n")
    plain = settings_module.TrainConfig("m", train_file=str(path))
    assert "choice_labels" not in data._SETTINGS
    assert data.digest(plain, data.open_splits(plain)) == (
        "29636c2a38f61d698a656d2187fa2cff94069db8677f5f728e8d1f2b1049a4db"
    )
