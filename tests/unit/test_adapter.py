"""An adapter in a model: what is trained is saved, and put back, packed and merged it gives one answer."""

from __future__ import annotations

import pytest
import torch
from ringtune.train import adapter, adapter_settings, optimizer, trainable
from ringtune.train.attention import PACKED_TYPES, take_packed_rows
from ringtune.train.config import TrainConfig, parse
from ringtune.train.contract import UsageError
from ringtune.train.dropout import Dropout
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.gradient import OverlappedReducer
from test_first_token import classifier
from test_packing import LENGTHS, alone, rows_of

ON = {"target_modules": ["query", "value"]}
WAYS: dict[str, dict[str, object]] = {
    "BOFT": {"boft_block_size": 4, **ON},
    "C3A": {"block_size": 4, **ON},
    "DELORA": {"r": 4, **ON},
    "FOURIERFT": {"n_frequency": 20, **ON},
    "GRALORA": {"r": 4, **ON},
    "HIRA": {"r": 4, **ON},
    "HRA": {"r": 4, **ON},
    "IA3": {},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "LOHA": {"r": 4, **ON},
    "LOKR": {"r": 4, **ON},
    "LORA": {"r": 4},
    "MISS": {"r": 4, **ON},
    "OFT": {"oft_block_size": 4, **ON},
    "RANDLORA": {"r": 4, **ON},
    "SHIRA": {"r": 4, **ON},
    "VBLORA": {"num_vectors": 8, "vector_length": 4, "r": 2, **ON},
    "VERA": {"r": 4, **ON},
    "WAVEFT": {"n_frequency": 20, **ON},
    "LORA of words": {"r": 4, "target_modules": ["query", "word_embeddings"]},
    "LORA with DoRA": {"r": 4, "use_dora": True, "use_rslora": True, "bias": "all", "target_modules": "all-linear"},
    "LORA and words": {"r": 4, "modules_to_save": ["word_embeddings"]},
    "LORA and layers": {"target_modules": ["word_embeddings"], "modules_to_save": ["encoder"]},
}


def with_adapter(way: str = "LORA", family: str = "bert", **changes: object) -> tuple[torch.nn.Module, adapter.Adapter]:
    """Return a classifier whose answers differ from row to row, and an adapter in it, not trained yet."""
    network = classifier(family, initializer_range=0.4, attention_probs_dropout_prob=0.0, pad_token_id=1)
    settings = {"peft_type": way.split()[0], **WAYS.get(way, {}), **changes}
    return network.eval(), adapter.add(network, settings, "base", "here", seed=1)


def shake(network: torch.nn.Module) -> None:
    """Change all that is trained a little."""
    torch.manual_seed(3)
    with torch.no_grad():
        for each in trainable.trainable(network).values():
            each.add_(torch.randn_like(each) * 0.05)


def packed(network: torch.nn.Module) -> torch.nn.Module:
    take_packed_rows(leave_out_other_tokens(network))
    return network


def logits(network: torch.nn.Module, several: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network.eval()(**each).logits for each in several])


def test_every_type_that_is_taken_is_tried_here():
    assert {way.split()[0] for way in WAYS} == set(adapter_settings.TYPES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_is_put_back_packed_and_merged_with_one_answer(way):
    """Rows alone in a plain model are the yardstick for packed rows, the saved tensors, and the merged model."""
    plain = classifier("bert", initializer_range=0.4, attention_probs_dropout_prob=0.0, pad_token_id=1).eval()
    weights = {name: each.clone() for name, each in plain.state_dict().items()}
    network, first = with_adapter(way)
    before = {name.replace("base_layer.", ""): each for name, each in network.state_dict().items()}
    for name, each in weights.items():
        assert name.startswith("classifier") or name not in before or torch.equal(before[name], each)
    shake(network)
    batch = rows_of(LENGTHS)
    expected = logits(network, alone(batch))
    assert (expected - logits(plain, alone(batch))).abs().max() > 0.1

    again, second = with_adapter(way)
    second.restore({name: each.clone() for name, each in first.tensors().items()}, "there")
    assert torch.equal(logits(again, alone(batch)), expected)
    assert second.files() == first.files()
    torch.testing.assert_close(logits(packed(again), [batch]), expected, rtol=1e-4, atol=1e-4)

    again.train()(**batch).logits.square().sum().backward()
    assert all(each.grad is not None for each in trainable.trainable(again).values())
    merged = first.merge()
    assert set(merged.state_dict()) == set(weights) and adapter.of(merged) is None
    torch.testing.assert_close(logits(merged, alone(batch)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", PACKED_TYPES)
def test_lora_has_targets_in_every_family_and_packed_rows_give_what_rows_alone_give(family):
    network, own = with_adapter(family=family)
    shake(network)
    batch = rows_of(LENGTHS)
    expected = logits(network, alone(batch))
    torch.testing.assert_close(logits(packed(network), [batch]), expected, rtol=1e-4, atol=1e-4)
    assert not any("original_module" in name for name in own.tensors())
    head = {name.split(".")[0] for name, _ in classifier(family).named_parameters()} - {network.base_model_prefix}
    assert head <= set(own.settings["modules_to_save"])


def test_dropout_of_lora_is_drawn_as_other_dropout_is_from_the_seed():
    network, _ = with_adapter(lora_dropout=0.5)
    shake(packed(network))
    layers = [each for each in network.modules() if isinstance(each, torch.nn.Dropout)]
    assert {type(each) for each in layers} == {Dropout} and sum(each.p == 0.5 for each in layers) == 6
    for each in layers:
        each.p = 0.5 if each.p == 0.5 else 0.0  # of LoRA alone
    batch, found = rows_of(LENGTHS), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(network.train()(**batch).logits.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_first_values_are_those_of_the_seed_whatever_was_drawn_before():
    found = []
    for seed, num_drawn in ((1, 5), (1, 7), (2, 5)):
        network = classifier("bert")
        torch.rand(num_drawn)
        own = adapter.add(network, {"peft_type": "LORA"}, "base", "here", seed=seed)
        found.append(torch.cat([each.flatten() for name, each in own.tensors().items() if "lora_A" in name]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# At BERT-base's size


class Counting:
    """A job of two ranks that counts what this one sends."""

    size, sent = 2, 0

    def add_async(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        self.sent += tensor.nbytes
        return tensor

    def wait(self, handle: torch.Tensor) -> torch.Tensor:
        return handle


def test_an_adapter_of_bert_base_sends_and_saves_a_hundredth_of_the_model():
    from transformers import BertConfig, BertForSequenceClassification

    network = BertForSequenceClassification(BertConfig())
    whole = sum(each.nbytes for each in network.parameters())
    own = adapter.add(network, {"peft_type": "LORA", "r": 8}, "base", "here")
    settings = TrainConfig("base", train_file="rows.csv")
    updates = optimizer.make_optimizer(network, settings)
    comm = Counting()
    reducer = OverlappedReducer(trainable.trainable(network), comm)  # type: ignore[arg-type]
    reducer.backward(network(torch.tensor([[2, 5, 3]])).logits.square().sum(), last=True)
    reducer.finish()
    updates.step()
    saved = [*own.tensors().values(), *optimizer.optimizer_tensors(network, updates).values()]
    assert 0 < comm.sent < 0.02 * whole
    assert 3 * comm.sent <= sum(each.nbytes for each in saved) < 0.03 * 3 * whole
    assert "296450 of 109778690 parameters are trained, sent and saved (0.27%)" in own.describe()


# What is refused


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "PREFIX_TUNING are not taken: it puts tokens"),
        ({"peft_type": "ADALORA", "total_step": 9}, "ADALORA are not taken: it must be told of every step"),
        ({"peft_type": "LORRA"}, "LORRA are not taken: it was not tried here.*LORA"),
        ({"peft_type": "LORA", "task_type": "CAUSAL_LM"}, "it is for CAUSAL_LM"),
        ({"peft_type": "LORA", "rank": 8}, "LoraConfig of peft has no 'rank'"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, "pissa changes the model's own weights"),
        ({"peft_type": "LORA", "layer_replication": [[0, 2]]}, "layer_replication was not tried here"),
        ({"peft_type": "LORA", "target_modules": ["query", "valeu"]}, "no layer .* is named 'valeu'.*nearest is value"),
        ({"peft_type": "LORA", "r": 0}, "peft makes no adapter of it: .*`r` should be a positive"),
        ({"peft_type": "LORA", "r": "8x"}, 'r is "8x"; a number'),
        ({"peft_type": "LORA", "r": 4.5}, "peft makes no adapter of it"),
        ({"peft_type": "LN_TUNING"}, "peft makes no adapter of it"),
    ],
    ids=str,
)
def test_an_adapter_that_cannot_work_is_refused_in_one_line(settings, wrong):
    with pytest.raises(UsageError, match=wrong) as caught:
        adapter.add(classifier("bert"), settings, "base", "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (["--lora_r", "0"], "--lora_r: 0 is too few"),
        (["--lora_alpha", "8"], "--lora_alpha: it belongs to LoRA, which is off"),
        (["--lora_r", "4", "--lora_dropout", "1"], "--lora_dropout: 1.0 is out of range"),
        (["--lora_r", "4", "--lora_alpha", "0"], "--lora_alpha: 0.0 is not positive"),
        (["--lora_r", "4", "--peft_config", "a.json"], "each describes an adapter"),
        (["--lora_r", "4", "--resize_token_embeddings"], "embeddings of new tokens would be neither trained nor saved"),
    ],
    ids=str,
)
def test_flags_that_do_not_go_together_are_refused(flags, wrong):
    with pytest.raises(UsageError, match=wrong):
        parse(["--model_name_or_path", "m", "--train_file", "rows.csv", *flags])


@pytest.mark.parametrize(
    ("content", "wrong"), [("{", "cannot be read"), ("[]", "of no adapter"), ('{"r": 8}', "of no ad")]
)
def test_a_file_that_describes_no_adapter_is_refused(tmp_path, content, wrong):
    (tmp_path / "a.json").write_text(content)
    config = TrainConfig("m", train_file="rows.csv", peft_config=str(tmp_path / "a.json"))
    with pytest.raises(UsageError, match=rf"--peft_config .*a.json: .*{wrong}"):
        adapter_settings.require_usable(config)


def test_flags_become_the_settings_of_lora():
    words = ["--model_name_or_path", "m", "--train_file", "r.csv", "--lora_r", "8", "--lora_target_modules"]
    config, _ = parse([*words, "query", "dense"])
    assert adapter_settings.of_run(config) == {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["query", "dense"],
    }
    everywhere = adapter_settings.of_run(parse([*words, "all-linear"])[0])
    assert everywhere is not None and everywhere["target_modules"] == "all-linear"


def test_freezing_all_that_is_trained_is_refused_and_the_share_is_of_what_is_left():
    network, _ = with_adapter()
    with pytest.raises(UsageError, match="every parameter matches"):
        trainable.freeze(network, ["*lora*", "*modules_to_save*"])
    network, _ = with_adapter()
    total, left = sum(each.numel() for each in network.parameters()), 99
    assert trainable.freeze(network, ["*lora*"]).endswith(f"{left / total:.1%} of all numbers are trained")
