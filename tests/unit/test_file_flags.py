"""Settings of files and columns that could have no effect are refused, in training and in prediction."""

from __future__ import annotations

import json

import datasets
import pytest
from ringtune.train import training_rows
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.report import report_no_scores
from ringtune.train.task.classification import Classification
from ringtune.train.task.question_answering import QuestionAnswering

ROWS = [{"text": "a", "label": "up", "language": "en"}, {"text": "b", "label": "down", "language": "de"}]
TASK = Classification(None, classes=("down", "up"))
REFUSED = [
    ("jsonl", {"csv_delimiter": ";"}, "--csv_delimiter ;: .*t.jsonl is read as jsonl"),
    ("jsonl", {"csv_quoting": "none"}, "--csv_quoting none: .*t.jsonl is read as jsonl"),
    ("csv", {"data_field": "rows"}, "--data_field rows: .*t.csv is read as csv"),
    ("csv", {"dataset_config_name": "sst2"}, "--dataset_config_name sst2: .*t.csv is no data set"),
    ("saved", {"csv_delimiter": ","}, "--csv_delimiter ,: .* is no file"),
    ("saved", {"dataset_config_name": "sst2"}, "--dataset_config_name sst2: .*saved"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "t.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    (folder / "t.json").write_text(json.dumps({"rows": ROWS, "more": ROWS}))
    (folder / "t.csv").write_text("text;label;language\na;up;en\nb;down;de\n")
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(folder / "saved")
    return folder


def open_input(folder, kind, **settings):
    path = folder / (kind if kind == "saved" else f"t.{kind}")
    config = PredictConfig("m", str(path), "o.jsonl", **settings)
    return inputs.open_source(config, TASK), config


def open_splits(folder, kind, **settings):
    path = str(folder / (kind if kind == "saved" else f"t.{kind}"))
    place = {"dataset_name": path} if kind == "saved" else {"train_file": path}
    return training_rows.open_splits(TrainConfig("m", "o", **place, **settings))


@pytest.mark.parametrize("opened", [open_input, open_splits])
@pytest.mark.parametrize(("kind", "settings", "words"), REFUSED)
def test_how_to_read_what_is_not_read_is_refused(folder, opened, kind, settings, words):
    with pytest.raises(UsageError, match=words):
        opened(folder, kind, **settings)


def test_a_split_of_a_file_and_files_of_rows_in_memory_too(folder):
    with pytest.raises(UsageError, match="--dataset_split test: .*t.csv is no data set"):
        open_input(folder, "csv", dataset_split="test")
    for settings in ({"data_field": "rows"}, {"dataset_split": "test"}):
        with pytest.raises(UsageError, match=f"--{next(iter(settings))} "):
            inputs.rows_in_memory(ROWS, PredictConfig("m", "", "", **settings), TASK)


def test_what_has_an_effect_on_one_of_the_splits_is_taken(folder):
    for kind, settings in (("csv", {"csv_delimiter": ";"}), ("json", {"data_field": "rows"})):
        assert set(open_input(folder, kind, **settings)[0].names) == set(ROWS[0])
        assert set(open_splits(folder, kind, **settings)) == {"train"}
    open_input(folder, "jsonl", csv_delimiter="auto", csv_quoting="auto")
    open_splits(folder, "jsonl", csv_delimiter=";", validation_file=str(folder / "t.csv"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"keep_columns": "language, language"}, "it names language twice"),
        ({"slice_by": "language,text,language"}, "it names language twice"),
        ({"label_separator": ";"}, "no row several labels: classes down, up"),
    ],
)
def test_columns_twice_and_a_separator_of_one_label_are_refused(folder, settings, words):
    source, config = open_input(folder, "jsonl", text_column_names="text,language", **settings)
    for task in (TASK, QuestionAnswering(None)):
        with pytest.raises(UsageError, match=f"--{next(iter(settings))} .*{words if task is TASK else ''}"):
            inputs.choose_columns(source, config, task)


def test_scores_that_are_asked_for_without_labels_are_reported(folder):
    found = []
    for settings in ({}, {"metrics": "f1_macro"}, {"report": "r.json"}):
        for label in ("label", "no_label"):
            source, config = open_input(folder, "jsonl", **settings)
            columns = inputs.choose_columns(source, config, Classification(None, classes=("down", "up")))
            columns = columns if label == "label" else inputs.replace(columns, label=None)
            report_no_scores(config, columns, source, found.append)
    assert len(found) == 2
    assert "no scores for --metrics f1_macro: no labels of" in found[0] and "--report r.json" in found[1]
