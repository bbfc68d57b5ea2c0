"""Leaving out what no head reads changes no logits and no gradients, of any family it is done for."""

from __future__ import annotations

import pytest
import torch
from ringtune.train.first_token import FAMILIES, leave_out_other_tokens
from transformers import AutoConfig, AutoModelForSequenceClassification

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 2,
    "hidden_dim": 64,
    "embedding_size": 32,
    "pad_token_id": 0,
}
# What every published DeBERTa-v2 and v3 has, and no configuration by default.
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 3,
    "share_att_key": True,
}
IDS = torch.arange(2, 50).reshape(4, 12)
MASK = (torch.arange(12) < torch.tensor([[12], [9], [5], [2]])).long()


def classifier(family: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(1)
    settings = {**SIZES, "num_labels": 3, **(DEBERTA if family == "deberta-v2" else {}), **more}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **settings)).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=MASK).logits


def tokens_seen(model: torch.nn.Module, mode=torch.inference_mode) -> list[int]:
    """Return how many tokens of a row the first matrix product of each feed-forward works on."""
    seen: list[int] = []
    hooks = [
        each.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
        for each in model.modules()
        if isinstance(each, torch.nn.Linear) and each.out_features == 64
    ]
    with mode():
        model(input_ids=IDS, attention_mask=MASK)
    for each in hooks:
        each.remove()
    return seen


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "mpnet"])
def test_logits_are_those_of_the_whole_layer(family):
    whole, cut = classifier(family), leave_out_other_tokens(classifier(family))
    torch.testing.assert_close(logits(cut), logits(whole), rtol=1e-5, atol=1e-6)
    assert tokens_seen(whole) == [12, 12, 12]
    assert tokens_seen(cut) == ([12, 12, 1] if family in FAMILIES else [12, 12, 12])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_whole_layer(family):
    gradients = []
    for model in (classifier(family), leave_out_other_tokens(classifier(family))):
        model(input_ids=IDS, attention_mask=MASK).logits.square().sum().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    assert tokens_seen(leave_out_other_tokens(classifier(family)).train(), torch.no_grad) == [12, 12, 1]


def test_a_feed_forward_in_slices_is_left_as_it_is():
    assert tokens_seen(leave_out_other_tokens(classifier("bert", chunk_size_feed_forward=4))) == [4] * 9


@pytest.mark.parametrize(("family", "num_layers"), [("bert", 0), ("bert", 1), ("distilbert", 1), ("deberta-v2", 1)])
def test_models_of_one_layer_or_none_work(family, num_layers):
    sizes = {"num_hidden_layers": num_layers, "n_layers": num_layers}
    whole, cut = classifier(family, **sizes), leave_out_other_tokens(classifier(family, **sizes))
    torch.testing.assert_close(logits(cut), logits(whole), rtol=1e-5, atol=1e-6)
