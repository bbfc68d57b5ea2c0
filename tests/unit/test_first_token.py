"""Leaving out what no head reads changes no logits, of any family it is done for, and nothing in training."""

from __future__ import annotations

import pytest
import torch
from ringtune.train.first_token import FAMILIES, leave_out_other_tokens
from transformers import AutoConfig, AutoModelForSequenceClassification

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
         "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64, "embedding_size": 32, "pad_token_id": 0}  # fmt: skip
IDS = torch.arange(2, 50).reshape(4, 12)
MASK = (torch.arange(12) < torch.tensor([[12], [9], [5], [2]])).long()


def classifier(family: str, **more) -> torch.nn.Module:
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(family, **SIZES, num_labels=3, **more)
    ).eval()


def tokens_seen(model: torch.nn.Module) -> list[int]:
    """Return how many tokens of a row each large matrix product of a prediction works on."""
    seen: list[int] = []
    hooks = [each.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
             for each in model.modules() if isinstance(each, torch.nn.Linear) and each.out_features == 64]  # fmt: skip
    with torch.inference_mode():
        model(input_ids=IDS, attention_mask=MASK)
    for each in hooks:
        each.remove()
    return seen


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "mpnet"])
def test_logits_are_those_of_the_whole_layer(family):
    whole, cut = classifier(family), leave_out_other_tokens(classifier(family))
    with torch.inference_mode():
        expected = whole(input_ids=IDS, attention_mask=MASK).logits
        found = cut(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert tokens_seen(whole) == [12, 12, 12]
    assert tokens_seen(cut) == ([12, 12, 1] if family in FAMILIES else [12, 12, 12])


@pytest.mark.parametrize("family", FAMILIES)
def test_training_computes_as_before_to_the_bit(family):
    gradients = []
    for model in (classifier(family), leave_out_other_tokens(classifier(family))):
        model(input_ids=IDS, attention_mask=MASK).logits.square().sum().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_feed_forward_in_slices_is_left_as_it_is():
    whole = classifier("bert", chunk_size_feed_forward=4)
    assert tokens_seen(leave_out_other_tokens(whole)) == tokens_seen(whole)
