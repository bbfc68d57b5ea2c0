"""An adapter's folder, of ringtune or of peft: read with its base, trained on, or refused in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from adapters import change, settings, tensors_of, write_adapter
from ringtune.train import adapter, checkpoint, model
from ringtune.train.attention import PACKED_TYPES
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.digest import state_digest
from ringtune.train.first_token import FAMILIES
from ringtune.train.task.classification import Classification
from ringtune.train.tokenizer import load_tokenizer, open_tokenizer
from safetensors.torch import load_file, save_file
from test_adapter import logits, packed, shake
from test_first_token import classifier
from test_packing import LENGTHS, alone, rows_of
from transformers import AutoModelForSequenceClassification

TASK = Classification(Columns(("text",), "label"), ("down", "up"))
HEAD = "base_model.model.classifier.weight"


@pytest.fixture
def base(workshop, tmp_path) -> Path:
    return Path(shutil.copytree(workshop.model, tmp_path / "base"))


@pytest.fixture
def folder(base, tmp_path) -> Path:
    """A trained adapter as a run leaves it, without what tells that it is a run's."""
    return write_adapter(tmp_path / "adapter", base, TASK)


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("down", "up"), "its head is kept: down, up"),
        (("up", "down"), "its head is kept by the names of its classes: up, down"),
        (("no", "yes"), r"its head knows other classes \(down, up\): a new one is drawn for no, yes"),
        (("a", "b", "c"), r"its head has 2 output\(s\): a new one is drawn for a, b, c"),
    ],
    ids=["same", "other order", "other names", "more"],
)
def test_an_adapter_is_trained_on_with_its_head_by_the_names_of_its_classes(folder, base, classes, line):
    saved, lines = load_file(folder / checkpoint.ADAPTER_FILE), []
    found = tensors_of(
        model.load_model(settings(folder), dataclasses.replace(TASK, classes=classes), report=lines.append)
    )
    assert any(line.replace("\\", "") in each for each in lines), lines
    assert any(f"its base is {base}" in each for each in lines)
    for name, each in saved.items():
        if name.startswith("base_model.model.classifier"):
            continue
        assert torch.equal(found[name], each)
    if set(classes) == {"down", "up"}:
        assert torch.equal(found[HEAD], saved[HEAD] if classes == ("down", "up") else saved[HEAD].flip(0))
    else:
        assert len(found[HEAD]) == len(classes) and found[HEAD].abs().max() < 0.2  # drawn, not one of the saved


def test_an_adapter_predicts_with_its_task_and_the_tokenizer_beside_it(folder, base):
    network, task, length = model.load_trained(str(folder))
    assert (task, length) == (TASK, 48)
    assert all(
        torch.equal(each, load_file(folder / checkpoint.ADAPTER_FILE)[name])
        for name, each in tensors_of(network).items()
    )
    assert open_tokenizer(str(folder), print).num_known_tokens == open_tokenizer(str(base), print).num_known_tokens
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    assert len(open_tokenizer(str(folder), print).tokenizer) == len(load_tokenizer(str(base)))  # that of its base


def test_an_adapter_that_peft_wrote_predicts_with_the_classes_of_its_own_head(base, tmp_path):
    import peft

    torch.manual_seed(5)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    wrapped = peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", init_lora_weights=False)).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    mine, task, length = model.load_trained(str(tmp_path / "theirs"))
    assert task == Classification(None, ("LABEL_0", "LABEL_1", "LABEL_2")) and length is None
    batch = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()(**batch).logits, wrapped(**batch).logits, atol=1e-6, rtol=1e-5)


def test_what_is_drawn_for_a_base_without_a_head_is_no_part_of_the_model(folder, base):
    """Else ranks would have other models, and a killed prediction could not go on."""
    kept = {name: each for name, each in load_file(base / "model.safetensors").items() if "classifier" not in name}
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    states = [model.load_trained(str(folder))[0].state_dict() for _ in range(2)]
    assert state_digest(states[0]) != state_digest(states[1])
    assert state_digest(adapter.used(states[0])) == state_digest(adapter.used(states[1]))
    assert HEAD.removeprefix("base_model.model.").replace(".weight", ".modules_to_save.default.weight") in states[0]
    assert any("modules_to_save" in name for name in adapter.used(states[0]))


def test_a_pooler_that_the_base_lacks_is_trained_and_saved(base, workshop):
    kept = {name: each for name, each in load_file(base / "model.safetensors").items() if ".pooler." not in name}
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    names = set(tensors_of(model.load_model(settings(base, lora_r=4), TASK)))
    assert "base_model.model.bert.pooler.dense.weight" in names
    whole = set(tensors_of(model.load_model(settings(workshop.model, lora_r=4), TASK)))
    assert names - whole == {f"base_model.model.bert.pooler.dense.{each}" for each in ("weight", "bias")}


def spoil_weights(folder: Path, base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["bert.encoder.layer.1.attention.self.query.bias"][0] += 1e-4
    save_file(weights, base / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (spoil_weights, "the base model .*base is not the one that its adapter was trained with"),
        (lambda folder, base: shutil.rmtree(base), "its base model is not there: .*base; .*a link to where it is now"),
        (lambda folder, base: change(folder / "adapter_config.json", base_model_name_or_path=None), "no base model"),
        (
            lambda folder, base: change(folder / "adapter_config.json", base_model_name_or_path="no_one/s-model"),
            "its base model is not there: no_one/s-model; .*where there is a network",
        ),
        (lambda folder, base: change(folder / "adapter_config.json", r=8), "lora_A.weight does not fit"),
        (lambda folder, base: change(folder / "adapter_config.json", target_modules=["key"]), "does not fit"),
        (lambda folder, base: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder, base: (folder / "adapter_model.safetensors").write_text("{"), "cannot be read"),
        (lambda folder, base: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (
            lambda folder, base: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            "adapter_model.bin is a pickle, which is not read",
        ),
        (
            lambda folder, base: shutil.copy(folder / "adapter_config.json", base),
            "it is an adapter .*no base model for another one.*merge",
        ),
    ],
)
@pytest.mark.parametrize(
    "load", [lambda name: model.load_model(settings(name), TASK), lambda name: model.load_trained(name)]
)
def test_an_adapter_that_cannot_be_used_is_refused_in_one_line(folder, base, spoil, wrong, load, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load(str(folder))
    spoil(folder, base)
    with pytest.raises(UsageError, match=wrong) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"lora_alpha": 4.0}, "has an adapter with lora_alpha 8, now it is 4"),
        ({"lora_target_modules": "key"}, r"target_modules \['query', 'value'\], now it is \['key'\]"),
    ],
)
def test_a_checkpoint_of_another_adapter_or_base_is_refused(folder, base, changes, wrong):
    adapter.require_saved(model.load_model(settings(base, lora_r=4), TASK), folder)
    adapter.require_saved(model.load_model(settings(base), TASK), folder)  # one without an adapter asks nothing
    with pytest.raises(UsageError, match=wrong):
        adapter.require_saved(model.load_model(settings(base, lora_r=4, **changes), TASK), folder)
    spoil_weights(folder, base)
    with pytest.raises(UsageError, match="the base model .*base is not the one"):
        adapter.require_saved(model.load_model(settings(base, lora_r=4), TASK), folder)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [({"lora_r": 4}, "--lora_r: .*trained on as it is"), ({"resize_token_embeddings": True}, "trained on as it is")],
)
def test_an_adapter_to_start_from_is_not_given_another_one(folder, changes, wrong):
    with pytest.raises(UsageError, match=wrong):
        model.load_model(settings(folder, **changes), TASK)


def test_merging_without_an_adapter_is_refused(base):
    with pytest.raises(UsageError, match="there is no adapter to merge"):
        model.load_model(settings(base, save_merged_model=True), TASK)


def test_without_peft_the_flag_says_what_to_install(base, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--lora_r: it needs the library peft.*pip install"):
        model.load_model(settings(base, lora_r=4), TASK)


@pytest.mark.parametrize("family", sorted({*PACKED_TYPES, *FAMILIES}))
def test_peft_reads_what_is_written_and_answers_the_same_in_every_family(tmp_path, family):
    """Heads differ from family to family, and some have several parts: all of them must be in the file."""
    import peft

    targets = {"target_modules": "all-linear"}
    base, path = tmp_path / "base", tmp_path / "adapter"
    network = classifier(family, initializer_range=0.4, pad_token_id=1)
    network.save_pretrained(base)
    own = adapter.add(network, {"peft_type": "LORA", "r": 2, **targets}, str(base), "here")
    shake(network)
    path.mkdir()
    for name, content in own.files().items():
        (path / name).write_bytes(content)
    save_file({name: each.contiguous() for name, each in own.tensors().items()}, path / checkpoint.ADAPTER_FILE)
    other = AutoModelForSequenceClassification.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(other, path)
    batch = rows_of(LENGTHS)
    assert torch.equal(logits(theirs, [batch]), logits(network, [batch]))
    mine, _, _ = model.load_trained(str(path))
    torch.testing.assert_close(logits(mine, [batch]), logits(network, [batch]), atol=1e-4, rtol=1e-4)


def test_positions_are_counted_right_where_an_adapter_is_on_their_table():
    """RoBERTa's begin behind the padding token, which the adapter's layer does not know."""
    network = classifier("roberta", initializer_range=0.4, pad_token_id=1)
    adapter.add(network, {"peft_type": "LORA", "target_modules": ["position_embeddings"]}, "base", "here")
    shake(network)
    batch = rows_of(LENGTHS)
    expected = logits(network, alone(batch))
    torch.testing.assert_close(logits(packed(network), [batch]), expected, rtol=1e-4, atol=1e-4)
