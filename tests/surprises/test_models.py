"""What a model's folder holds is used as it is meant, or refused, or named; nothing is filled with noise in silence."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import tiny
import torch
from families import write_model
from ringtune.train import model, model_tokens
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.load import load_predictor, resolve
from ringtune.train.pretrained import unusable
from ringtune.train.task.classification import Classification
from ringtune.train.task.regression import Regression
from ringtune.train.tokenizer import open_tokenizer
from ringtune.train.tokens import encode
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
    network = model.load_model(config, task, num_tokens, reports.append)
    assert reports.pop().startswith(f"model {folder}: its rows are pa")  # packed, or padded
    return network, reports


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
    assert logits(network, folder) == pytest.approx(expected, abs=1e-6)
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


def test_of_a_head_of_another_size_a_new_one_is_drawn_and_that_is_reported(folder):
    network, reports = load(folder, Classification(COLUMNS, ("down", "up")))
    assert network.classifier.out_features == 2
    assert reports == [f"model {folder}: its head has 3 output(s): a new one is drawn for down, up"]
    network, reports = load(folder, Regression(COLUMNS))
    assert network.classifier.out_features == 1 and reports[0].endswith("a new one is drawn for 1 number(s)")


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


def edit(folder, **changes) -> None:
    """Change config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def predict(folder) -> torch.nn.Module:
    return model.load_trained(str(folder))[0]


both = pytest.mark.parametrize("read", [load, predict])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_trained_as_float32_and_that_is_reported(folder, dtype):
    AutoModelForSequenceClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    network, reports = load(folder)
    name = str(dtype).removeprefix("torch.")
    assert reports[0] == f"model {folder}: its weights are {name}: they are trained and saved as float32"
    assert {each.dtype for each in network.parameters()} == {torch.float32} == {network.config.dtype}
    assert {each.dtype for each in predict(folder).parameters()} == {torch.float32}


@both
def test_a_body_of_another_shape_than_its_configuration_makes_is_refused(folder, read):
    known = BertConfig.from_pretrained(folder).vocab_size
    edit(folder, vocab_size=known + 3)
    with pytest.raises(
        UsageError, match=rf"word_embeddings.weight has shape \[{known}, 32\] in its weights, \[{known + 3}"
    ):
        read(folder)


def test_a_head_of_another_shape_than_its_configuration_makes_does_not_predict(folder):
    edit(folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(UsageError, match=r"classifier.* has shape \[3.*\] in its weights, \[2.*correct config.json"):
        predict(folder)


@both
def test_quantised_weights_are_refused_by_their_method(folder, read):
    edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(UsageError, match=r"its weights are quantised \(bitsandbytes\)"):
        read(folder)


@both
def test_code_that_a_model_brings_along_is_never_run(folder, read, tmp_path):
    edit(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UsageError, match=r"it brings code of its own \(auto_map in config.json\), which is never run"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_several_labels_a_row_is_trained_on_one_and_that_is_reported_and_predicts_as_it_is(folder):
    edit(folder, problem_type="multi_label_classification")
    network, reports = load(folder)
    assert network.config.problem_type == "single_label_classification"
    assert reports[0].endswith("it was trained to give a row several labels; now it is trained to give one")
    _, task, _ = model.load_trained(str(folder))
    assert task.kind == "multi_label" and task.width == network.config.num_labels


@both
def test_a_folder_without_a_configuration_is_refused_with_what_is_there(folder, read):
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match="it has no config.json; it has model.safetensors, "):
        read(folder)
    (folder / "checkpoint-12").mkdir()
    with pytest.raises(UsageError, match=r"it has no config.json; .*name one of its folders checkpoint-\.\.\."):
        read(folder)


def test_a_model_that_reads_no_text_is_refused_before_the_first_row(folder):
    edit(folder, model_type="vit")
    with pytest.raises(UsageError, match="a model of type vit reads no tokens"):
        open_tokenizer(str(folder), print)


def test_a_model_that_cannot_run_its_tokenizers_rows_is_named_with_the_reason(folder):
    write_model(folder, "t5", vocab_size=90, d_model=32, num_layers=1, num_heads=2, d_ff=32, d_kv=16)
    network, _ = load(folder)
    tokenizer = open_tokenizer(str(folder), print).tokenizer
    with pytest.raises(UsageError, match="the model takes no row of 4 tokens: .*decoder_start_token_id"):
        model_tokens.refuse_other_tokens(network, TASK, [encode(tokenizer, [["the film"]], 16)])


def test_of_a_name_on_the_hub_without_safetensors_the_flag_is_named():
    error = OSError("a/b does not appear to have a file named model.safetensors or model.safetensors.index.json")
    assert "--allow_pickle true" in str(unusable("a/b", "model", error))
    assert "no such folder" in str(unusable("a/b", "model", OSError("a/b is not a local folder")))
