"""Classes that the library datasets writes into Parquet and Arrow files are read as they are from a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from preparing import predicted, train
from ringtune.train.contract import UsageError

NAMES = ["fine", "bad", "awful"]
TEXTS = ["one film", "two films", "three films", "four films"]
SEVERAL = [[2], [0, 1], [], [1]]
TEXT = Value("string")
#: Columns and their features: one label, several, a tag a word, one of several choices.
KINDS = {
    "label": ({"text": TEXTS, "label": [2, 0, 1, 2]}, {"text": TEXT, "label": ClassLabel(names=NAMES)}),
    "labels": (
        {"text": TEXTS, "label": SEVERAL},
        {"text": TEXT, "label": List(ClassLabel(names=NAMES))},
    ),
    "tags": (
        {"tokens": [each.split() for each in TEXTS], "ner_tags": [[0, 1], [1, 2], [0, 0], [2, 1]]},
        {"tokens": List(TEXT), "ner_tags": List(ClassLabel(names=["O", "B-A", "B-B"]))},
    ),
    "choices": (
        {"sent1": TEXTS, "sent2": TEXTS, "ending0": TEXTS, "ending1": TEXTS[::-1], "label": [1, 0, 0, 1]},
        {**{name: TEXT for name in ("sent1", "sent2", "ending0", "ending1")}, "label": ClassLabel(names=["1", "0"])},
    ),
}


def content(found) -> tuple[object, ...]:
    """Return what the rows are for a model: the task, and every column of the features."""
    columns = {**found.train.feature_columns, **found.train.token_columns}
    return found.task.to_json(), {name: each.tolist() for name, each in columns.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_as_the_data_set_they_were_written_from(tmp_path, kind):
    rows, features = KINDS[kind]
    data_set = Dataset.from_dict(rows, features=Features(features))
    data_set.save_to_disk(str(tmp_path / "set"))
    data_set.to_parquet(str(tmp_path / "rows.parquet"))
    shutil.copy(tmp_path / "set" / "data-00000-of-00001.arrow", tmp_path / "rows.arrow")
    expected = content(train(tmp_path, tmp_path / "set"))
    for name in ("rows.parquet", "rows.arrow"):
        assert content(train(tmp_path, tmp_path / name)) == expected


def parquet(path: Path, labels: list[object], feature: object, kind: pa.DataType | None = None) -> Path:
    """Write a text column and labels; feature: what is stored of the label, as the library writes it."""
    table = pa.table({"text": TEXTS, "label": pa.array(labels, kind)})
    stored = feature if isinstance(feature, str) else json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": stored}), path)
    return path


def stored(names: list[str]) -> dict[str, object]:
    return {"names": names, "_type": "ClassLabel"}


def labels_of(found, features) -> list[str]:
    return [found.task.classes[each] for each in features.feature_columns["labels"]]


def test_each_split_and_each_file_has_its_own_numbers(tmp_path):
    a = parquet(tmp_path / "a.parquet", [2, 0, 1, 2], stored(NAMES))
    b = parquet(tmp_path / "b.parquet", [0, 0, 1, 2], stored(NAMES[::-1]))
    found = train(tmp_path, f"{a},{b}", validation_file=str(b))
    assert found.task.classes == tuple(NAMES)
    assert (
        labels_of(found, found.train)[4:] == labels_of(found, found.validation[""]) == ["awful", "awful", "bad", "fine"]
    )
    batches, _ = predicted(b, label_column_name="label")
    assert batches[0]["label"].to_pylist() == ["awful", "awful", "bad", "fine"]


@pytest.mark.parametrize("feature", [stored(["good", "bad", "awful"]), None], ids=["others", "none"])
def test_files_with_other_classes_are_no_input_together(tmp_path, feature):
    files = [
        parquet(tmp_path / "a.parquet", [2, 0, 1, 2], stored(NAMES)),
        parquet(tmp_path / "b.parquet", [2, 0, 1, 2], feature),
    ]
    with pytest.raises(UsageError, match="column 'label' declares (the classes good, bad, awful|no classes); those of"):
        train(tmp_path, ",".join(map(str, files)))


def test_what_is_stored_in_older_forms_or_for_other_columns(tmp_path):
    expected = train(tmp_path, parquet(tmp_path / "a.parquet", SEVERAL, {"feature": stored(NAMES), "_type": "List"}))
    for form in ({"feature": stored(NAMES), "length": -1, "_type": "Sequence"}, [stored(NAMES)]):
        assert content(train(tmp_path, parquet(tmp_path / "b.parquet", SEVERAL, form))) == content(expected)
    for feature in (stored([]), {"names": None, "_type": "ClassLabel"}, {"dtype": "int64", "_type": "Value"}, [], 3):
        plain = train(tmp_path, parquet(tmp_path / "c.parquet", [2, 0, 1, 2], feature))
        assert plain.task.classes == ("0", "1", "2")
    names = train(tmp_path, parquet(tmp_path / "d.parquet", ["x", "y", "x", "y"], stored(NAMES)))  # no numbers
    assert names.task.classes == ("x", "y")
    for nothing in ("[]", "{}", '{"info": 3}', '{"info": {"features": null}}'):
        assert train(tmp_path, parquet(tmp_path / "e.parquet", [0, 1, 0, 1], nothing)).task.classes == ("0", "1")
    with pytest.raises(UsageError, match="what it has under 'huggingface' is no JSON"):
        train(tmp_path, parquet(tmp_path / "f.parquet", [0, 1, 0, 1], "{"))


def test_other_names_for_the_same_numbers_are_other_rows(tmp_path):
    digests = set()
    for names in (NAMES, NAMES[::-1]):
        path = parquet(tmp_path / "a.parquet", [2, 0, 1, 2], stored(names))
        digests.add(predicted(path, label_column_name="label")[1].digest)
    assert len(digests) == 2
