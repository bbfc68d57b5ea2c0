"""What a model's folder holds is used as it is meant, or refused, or named; nothing is filled with noise in silence."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import tiny
import torch
from ringtune.train import model
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.load import load_predictor, resolve
from ringtune.train.task.classification import Classification
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig

COLUMNS = Columns(("text",), "label")
TASK = Classification(COLUMNS, ("down", "odd", "up"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the folder of a fine-tuned classifier whose classes are in an order of their own."""
    folder = tmp_path_factory.mktemp("models")
    tiny.write(folder)
    names = ("up", "down", "odd")
    config = BertConfig.from_pretrained(
        folder / "model", num_labels=3, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )
    torch.manual_seed(1)
    made = AutoModelForSequenceClassification.from_config(config)
    torch.nn.init.normal_(made.classifier.weight)
    made.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy of it to spoil."""
    return shutil.copytree(original, tmp_path / "model")


def load(folder, task=TASK, num_tokens=0, **settings) -> tuple[torch.nn.Module, list[str]]:
    reports: list[str] = []
    config = TrainConfig(str(folder), **settings)
    return model.load_model(config, task, num_tokens, reports.append), reports


def logits(network, folder) -> dict[str, float]:
    """Return the logit of each class by its name."""
    words = AutoTokenizer.from_pretrained(folder)("the film was good", return_tensors="pt")
    with torch.no_grad():
        found = network.eval()(**words).logits[0].tolist()
    return {network.config.id2label[number]: value for number, value in enumerate(found)}


def rename(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({change(name): each for name, each in weights.items()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_weights_under_other_names_are_refused_with_the_rename_that_fits(folder, prefix):
    rename(folder, lambda name: prefix + name)
    with pytest.raises(UsageError, match=rf"\d+ of its weights are not in it, bert.*'{prefix}' before their names"):
        load(folder)


def test_a_layer_that_is_missing_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "layer.1.output.dense" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="2 of its weights are not in it, bert.encoder.layer.1.output.dense"):
        load(folder)


def test_a_body_without_head_or_pooler_gets_a_new_head(folder, tmp_path):
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(tmp_path / "body")
    shutil.copy(folder / "vocab.txt", tmp_path / "body")
    _, reports = load(tmp_path / "body")
    assert reports == []


def test_a_kept_head_keeps_its_classes_by_name(folder):
    expected = logits(AutoModelForSequenceClassification.from_pretrained(folder), folder)
    network, reports = load(folder)
    assert logits(network, folder) == pytest.approx(expected)
    assert tuple(network.config.id2label.values()) == TASK.classes
    assert reports == [f"model {folder}: its head is kept by the names of its classes: down, odd, up"]


def test_a_head_in_the_order_of_the_task_is_kept_as_it_is(folder):
    task = Classification(COLUMNS, ("up", "down", "odd"))
    network, reports = load(folder, task)
    assert torch.equal(network.classifier.weight, load_file(folder / "model.safetensors")["classifier.weight"])
    assert reports[0].endswith("its head is kept: classes up, down, odd")


def test_of_a_head_for_other_classes_a_new_one_is_drawn_and_that_is_reported(folder):
    task = Classification(COLUMNS, ("a", "b", "c"))
    first, reports = load(folder, task)
    second, _ = load(folder, task)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, load_file(folder / "model.safetensors")["classifier.weight"])
    assert reports[0].endswith("its head knows other classes (up, down, odd): a new one is drawn for a, b, c")


def test_a_head_whose_classes_have_no_names_is_kept_for_numbers_only(folder):
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    network.config.id2label = {number: f"LABEL_{number}" for number in range(3)}
    network.config.label2id = {f"LABEL_{number}": number for number in range(3)}
    network.save_pretrained(folder)
    kept, reports = load(folder, Classification(COLUMNS, ("0", "1", "2")))
    assert torch.equal(kept.classifier.weight, network.classifier.weight) and "is kept" in reports[0]
    _, reports = load(folder)
    assert reports[0].endswith("its head gives its classes no names: a new one is drawn for down, odd, up")


def test_a_head_of_another_size_is_new(folder):
    network, reports = load(folder, Classification(COLUMNS, ("down", "up")))
    assert network.classifier.out_features == 2 and reports == []


def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused_or_the_model_grows(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["brandnew"])
    tokenizer.save_pretrained(folder)
    known = BertConfig.from_pretrained(folder).vocab_size
    with pytest.raises(UsageError, match=rf"has {known + 1} tokens, the model knows {known}.*--resize_token"):
        load(folder, num_tokens=len(tokenizer))
    grown, _ = load(folder, num_tokens=len(tokenizer), resize_token_embeddings=True)
    again, _ = load(folder, num_tokens=len(tokenizer), resize_token_embeddings=True)
    assert grown.get_input_embeddings().num_embeddings == known + 1
    assert torch.equal(grown.get_input_embeddings().weight, again.get_input_embeddings().weight)
    settings = resolve(dataclasses.replace(PredictConfig(str(folder), "in.csv", "out.csv")))
    with pytest.raises(UsageError, match=f"its tokenizer has {known + 1} tokens"):
        load_predictor(settings, torch.device("cpu"))
