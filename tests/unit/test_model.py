"""A model, its tokenizer and a checkpoint fit together or are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ringtune.train import config, model, model_tokens, tokens
from ringtune.train import optimizer as optimizers
from ringtune.train import task as tasks
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.task.classification import Classification
from ringtune.train.task.regression import Regression
from ringtune.train.tokenizer import load_tokenizer

TASK = Classification(Columns(("text",), "label"), ("down", "up"))


def settings(folder: Path) -> config.TrainConfig:
    return config.TrainConfig(model_name_or_path=str(folder), train_file="rows.csv")


@pytest.fixture
def copy(workshop, tmp_path) -> Path:
    return Path(shutil.copytree(workshop.model, tmp_path / "model"))


def network(workshop) -> torch.nn.Module:
    return model.load_model(settings(workshop.model), TASK)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[1]"),
        ("tokenizer.json", ""),
        ("tokenizer_config.json", "[]"),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "bert", "hidden_size": "x"}'),
        ("config.json", '{"model_type": "bert", "hidden_size": -2}'),
        ("model.safetensors", "torn"),
    ],
)
def test_a_spoilt_file_of_a_model_is_told_in_one_line(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(
        UsageError, match=r"no (tokenizer|model) could be read from it: .*a folder written by save_pretrained"
    ) as caught:
        load_tokenizer(str(copy))
        model.load_model(settings(copy), TASK)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused_not_read_as_unknown_words(copy):
    for each in copy.iterdir():
        if each.name not in ("config.json", "model.safetensors"):
            each.unlink()
    with pytest.raises(UsageError, match="no tokenizer could be read from it: there are no words in it"):
        load_tokenizer(str(copy))


def rows(*lengths: int, largest: int = 5) -> tokens.Features:
    num_rows = len(lengths)
    return tokens.Features(
        token_columns={"input_ids": np.full(sum(lengths), largest, dtype=np.int32)},
        offsets=np.cumsum([0, *lengths]),
        feature_columns={},
        row_of=np.arange(num_rows),
        num_terms=np.ones(num_rows, dtype=np.int32),
        lengths=np.array(lengths, dtype=np.int32),
        padding=tokens.Padding(0, 0, "right"),
    )


def test_tokens_of_another_model_are_refused_before_the_first_step(workshop):
    known = json.loads((workshop.model / "config.json").read_text())["vocab_size"]
    net = network(workshop)
    model_tokens.refuse_other_tokens(net, TASK, [rows(3, 64, 2, largest=known - 1)])
    with pytest.raises(UsageError, match=f"gives token {known}, the model knows {known} tokens"):
        model_tokens.refuse_other_tokens(net, TASK, [rows(3), rows(3, largest=known)])
    with pytest.raises(UsageError, match="the model takes no row of 65 tokens: .*with its own tokenizer"):
        model_tokens.refuse_other_tokens(net, TASK, [rows(3), rows(2, 65, 2)])


def test_weights_and_moments_of_another_model_are_refused(workshop):
    net = network(workshop)
    own = {name: each.clone() for name, each in net.state_dict().items()}
    model.restore_model(net, own, "c")
    first = next(iter(own))
    for other in ({**own, first: own[first][:1]}, {**own, "more": own[first]}, dict(list(own.items())[1:])):
        with pytest.raises(UsageError, match="c: it is a checkpoint of another model: .*check --model_name_or_path"):
            model.restore_model(net, other, "c")
    optimizer = optimizers.make_optimizer(net, settings(workshop.model))
    for name in (f"{first}/exp_avg", "more/exp_avg"):
        with pytest.raises(UsageError, match="c: its optimizer state .* does not fit this model"):
            optimizers.restore_optimizer(net, optimizer, {name: torch.zeros(1)}, "c")


@pytest.mark.parametrize("task", [TASK, Regression(Columns(("a", "b"), None)), Regression(None)])
def test_a_task_is_the_same_after_it_was_written_and_read(tmp_path, task):
    (tmp_path / "task.json").write_bytes(tasks.to_bytes(task, 48))
    assert tasks.read(tmp_path) == (task, 48)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "kind": "x", "text_columns": null}']
)
def test_a_damaged_task_file_is_one_line(tmp_path, content):
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(UsageError, match=r"task.json: it (cannot be read|has format)") as caught:
        tasks.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_task_file_has_the_task_of_its_configuration(workshop, tmp_path):
    net = model.load_model(settings(workshop.model), TASK)
    net.save_pretrained(tmp_path)
    _, task, max_seq_length = model.load_trained(str(tmp_path))
    assert task == Classification(None, ("down", "up")) and max_seq_length is None
    (tmp_path / "task.json").write_bytes(tasks.to_bytes(TASK, 48))
    assert model.load_trained(str(tmp_path))[1:] == (TASK, 48)
    (tmp_path / "task.json").write_bytes(tasks.to_bytes(Regression(None), 48))
    with pytest.raises(UsageError, match="its task.json has 1 outputs, its model 2"):
        model.load_trained(str(tmp_path))
