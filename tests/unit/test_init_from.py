"""A run that starts from an earlier one keeps its classes, by name, and their rows of the head, bit by bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from earlier_runs import write_model, write_task
from preparing import load
from ringtune.train import config, init_from, model
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.label_sets import LabelSets
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression
from ringtune.train.task.token_classification import TokenClassification
from ringtune.train.task.windows import Windows

COLUMNS = Columns(("text",), "label")
OLD = Classification(COLUMNS, ("up", "down"))  # in an order that no file would give


def rows(*labels) -> str:
    return "text,label\n" + "".join(f"text{number},{label}\n" for number, label in enumerate(labels))


def load_from(tmp_path, old, content, **settings):
    run = write_task(tmp_path / "old", old)
    return load(tmp_path, content, init_from=str(run), **settings)


@pytest.mark.parametrize(
    ("old", "labels", "classes", "numbers"),
    [
        (("up", "down"), ("odd", "up", "odd"), ("up", "down", "odd"), [2, 0, 2]),
        (("up", "down"), ("odd", "odd"), ("up", "down", "odd"), [2, 2]),
        (("up", "down"), ("up", "up"), ("up", "down"), [0, 0]),
        (("False", "True"), ("true", "true"), ("False", "True"), [1, 1]),
        (("0", "1"), ("1.0", "2.0"), ("0", "1", "2"), [1, 2]),
        (("b", "a"), ("d", "c", "a"), ("b", "a", "c", "d"), [3, 2, 1]),
        (("It", "Us"), ("IT", "Us"), ("It", "Us", "IT"), [2, 1]),
    ],
)
def test_old_classes_come_first_in_their_order_and_new_ones_follow(tmp_path, old, labels, classes, numbers):
    found = load_from(tmp_path, Classification(COLUMNS, old), rows(*labels))
    assert found.task.classes == classes
    assert found.train.feature_columns["labels"].tolist() == numbers


@pytest.mark.parametrize("old", [OLD, Regression(COLUMNS)], ids=["classes", "a number"])
def test_windows_are_taken_over_whatever_the_kind_and_given_ones_win(tmp_path, old):
    run = write_task(tmp_path / "old", replace(old, windows=Windows(3, "max")))
    words = ["--init_from", str(run), "--train_file", "t.csv"]
    found, _ = config.parse(words)
    assert (found.window_stride, found.window_pooling) == (3, "max")
    found, _ = config.parse([*words, "--window_stride", "2", "--window_pooling", "mean"])
    assert (found.window_stride, found.window_pooling) == (2, "mean")
    content = rows("1", "2") if isinstance(old, Regression) else rows("up", "down")
    assert load(tmp_path, content, init_from=str(run)).task.windows is None
    assert load(tmp_path, content, init_from=str(run), window_stride=2).task.windows == Windows(2, "mean")


def test_one_line_reports_what_becomes_of_the_head(tmp_path):
    found = load_from(tmp_path, OLD, rows("odd", "up", "new"))
    assert f"head: 2 classes of {tmp_path}/old kept, 2 new: new, odd" in found.report
    assert any("4 of 4 classes have one row or none: 'up', 'down', 'new', 'odd'" in line for line in found.report)
    none_new = load_from(tmp_path, OLD, rows("up", "down"), name="same.csv")
    assert f"head: 2 classes of {tmp_path}/old kept, none new" in none_new.report
    number = load_from(tmp_path, Regression(COLUMNS), rows("1", "3"), name="number.csv")
    assert f"head: that of {tmp_path}/old is kept" in number.report


def test_whole_numbers_go_on_with_a_regression(tmp_path):
    assert isinstance(load_from(tmp_path, Regression(COLUMNS), rows("1", "3", "5")).task, Regression)


def test_labels_of_several_and_tags_are_kept_by_name_too(tmp_path):
    several = '{"text": "a", "label": ["new", "up"]}\n{"text": "b", "label": []}\n'
    old = MultiLabel(Columns(("text",), "label", sets=LabelSets()), ("up", "down"), (0.25, 0.75))
    found = load_from(tmp_path, old, several, name="several.jsonl").task
    assert (found.classes, found.thresholds) == (("up", "down", "new"), None)
    tagged = '{"tokens": ["a", "film"], "ner_tags": ["O", "B-ACT"]}\n'
    names = ("O", "B-MOOD", "I-MOOD", "B-THING", "I-THING")
    old = TokenClassification(Columns(("tokens",), "ner_tags", form="words"), names, "iob2")
    found = load_from(tmp_path, old, tagged, name="tagged.jsonl")
    assert found.task.classes == (*names, "B-ACT", "I-ACT")
    assert found.train.token_columns["labels"].max() == 5


def test_the_separator_of_labels_is_taken_over_where_labels_are_texts(tmp_path):
    old = MultiLabel(Columns(("text",), "label", sets=LabelSets(separator=";")), ("up", "down"))
    assert load_from(tmp_path, old, "text,label\na,up;odd\nb,\n").task.classes == ("up", "down", "odd")
    lists = '{"text": "a", "label": ["odd"]}\n'
    assert load_from(tmp_path, old, lists, name="l.jsonl").task.classes == ("up", "down", "odd")


@pytest.mark.parametrize(
    ("old", "content", "name", "both"),
    [
        (OLD, rows("0.5", "1.5"), "t.csv", "trained for classification, .* are of regression"),
        (Regression(COLUMNS), rows("up", "down"), "t.csv", "trained for regression, .* are of classification"),
        (OLD, '{"text": "a", "label": ["up"]}\n', "t.jsonl", "for classification, .* are of multi_label"),
        (
            OLD,
            '{"tokens": ["a"], "ner_tags": ["B-ACT"]}\n',
            "t.jsonl",
            "for classification, .* are of token_classification",
        ),
    ],
)
def test_another_kind_of_task_is_refused_and_both_are_named(tmp_path, old, content, name, both):
    with pytest.raises(UsageError, match=both):
        load_from(tmp_path, old, content, name=name)


def test_another_order_of_the_old_classes_is_another_table_in_the_cache(tmp_path):
    first = load_from(tmp_path, OLD, rows("up", "odd"))
    again = load_from(tmp_path, Classification(COLUMNS, ("down", "up")), rows("up", "odd"))
    assert first.digest != again.digest
    assert again.train.feature_columns["labels"].tolist() == [1, 2]


# The head


@pytest.fixture
def grown(workshop, tmp_path):
    """Return the model of an earlier run, and that of a later one which has two classes more."""
    run = write_model(tmp_path / "old", OLD, workshop.model)
    settings = config.TrainConfig(str(run), init_from=str(run))
    return model.load_trained(str(run))[0], lambda task, start=settings: model.load_model(start, task)


def logits(network, ids) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_old_rows_of_the_head_are_the_earlier_ones_bitwise_and_new_ones_are_drawn(grown):
    old, load_later = grown
    ids = torch.arange(5, 25).reshape(4, 5)
    new_task = Classification(COLUMNS, ("up", "down", "new", "odd"))
    new = load_later(new_task)
    assert torch.equal(new.classifier.weight[:2], old.classifier.weight)
    assert torch.equal(new.classifier.bias[:2], old.classifier.bias) and old.classifier.bias.abs().min() > 0
    assert torch.equal(logits(new, ids)[:, :2], logits(old, ids))
    assert new.classifier.weight[2:].std() > 0.01 and not new.classifier.bias[2:].any()
    assert new.config.id2label == {0: "up", 1: "down", 2: "new", 3: "odd"}
    drawn = load_later(new_task, config.TrainConfig(new.name_or_path))  # a head that is new as a whole
    assert torch.equal(drawn.classifier.weight[2:], new.classifier.weight[2:])
    assert not torch.equal(drawn.classifier.weight[:2], new.classifier.weight[:2])


def test_without_new_classes_the_model_is_the_earlier_one(grown):
    old, load_later = grown
    new = load_later(OLD)
    assert all(torch.equal(each, old.state_dict()[name]) for name, each in new.state_dict().items())


# The command line


def parse(*words):
    return config.parse(["--train_file", "rows.csv", *map(str, words)])[0]


def test_model_columns_and_length_are_taken_over_unless_they_are_given(tmp_path):
    run = write_task(tmp_path / "old", Classification(Columns(("a", "b"), "mood"), ("x", "y")))
    found = parse("--init_from", run)
    assert (found.model_name_or_path, found.max_seq_length) == (str(run), 16)
    assert (found.text_column_names, found.label_column_name) == ("a,b", "mood")
    given = parse("--init_from", run, "--max_seq_length", 8, "--text_column_names", "c", "--label_column_name", "label")
    assert (given.max_seq_length, given.text_column_names, given.label_column_name) == (8, "c", "label")
    assert parse("--init_from", run, "--model_name_or_path", f"{run}/").init_from == str(run)


def test_two_models_to_start_from_are_refused(tmp_path):
    run = write_task(tmp_path / "old", OLD)
    with pytest.raises(UsageError, match=f"{run} and bert-base-cased are two models to start from"):
        parse("--init_from", run, "--model_name_or_path", "bert-base-cased")


def test_a_run_that_is_not_there_or_has_not_finished_or_is_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--init_from .*nowhere: there is no such folder"):
        parse("--init_from", tmp_path / "nowhere")
    (tmp_path / "half" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(UsageError, match="the run in it has not finished; .*such as checkpoint-2"):
        parse("--init_from", tmp_path / "half")
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="it has no task.json"):
        parse("--init_from", tmp_path / "other")
    (tmp_path / "other" / "task.json").write_text("{")
    with pytest.raises(UsageError, match="its task.json cannot be read"):
        parse("--init_from", tmp_path / "other")
    content = {"format": 1, "kind": "masked_lm", "max_seq_length": 16}
    (tmp_path / "other" / "task.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="its task is masked_lm; .*--model_name_or_path .* its encoder alone"):
        parse("--init_from", tmp_path / "other")


@pytest.mark.parametrize(
    "change",
    [
        {"windows": 3},
        {"windows": {}},
        {"windows": {"stride": "3", "pooling": "mean"}},
        {"max_seq_length": [16]},
        {"max_seq_length": True},
        {"kind": ["classification"]},
        {"text_columns": 5},
        {"text_columns": [None]},
        {"label_column": 5},
        {"label_separator": 5},
        None,
    ],
)
def test_a_task_of_another_form_is_refused_by_its_file(tmp_path, change):
    content = json.loads((write_task(tmp_path / "old", OLD) / "task.json").read_bytes())
    whole = ["kind", "max_seq_length"] if change is None else {**content, **change}
    (tmp_path / "old" / "task.json").write_text(json.dumps(whole))
    with pytest.raises(UsageError, match="its task.json cannot be read: it.*; as ringtune wrote it"):
        parse("--init_from", tmp_path / "old")


def test_the_head_of_an_adapter_does_not_grow(tmp_path):
    run = write_task(tmp_path / "old", OLD)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (run / name).write_text("{}")
    (run / "base.json").write_text(json.dumps({"base": "m", "sha256": "0"}))
    with pytest.raises(UsageError, match="it is an adapter, whose head does not grow"):
        init_from.require_usable(config.TrainConfig(str(run), init_from=str(run)))
