"""Layers that backward computes again, and last layers that start from random weights."""

from __future__ import annotations

import copy

import pytest
import torch
from ringtune.train import attention, packing, trainable
from ringtune.train.contract import UsageError
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.recompute import recompute_layers
from ringtune.train.reinit import reinitialise
from test_optimizer import network

LENGTHS = (3, 7, 5)


def gradients(model):
    """Return loss and gradients of a batch of three rows, with dropout."""
    torch.manual_seed(7)
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.arange(2, 2 + length)
        mask[row, :length] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    loss = model.train()(**inputs).logits.square().sum()
    loss.backward()
    return loss.item(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_computing_layers_again_changes_no_bit_with_dropout_and_packed_rows(family, packs):
    plain = network(family)
    if packs:
        leave_out_other_tokens(plain)
        assert attention.can_pack(plain)
        attention.take_packed_rows(plain)
    again = copy.deepcopy(plain)
    assert "computed again" in recompute_layers(again)
    calls = []
    for layer in again.base_model.modules():
        if getattr(layer, "gradient_checkpointing", False):
            for part in layer.children():
                part.register_forward_hook(lambda *_: calls.append(1))
    loss, grads = gradients(plain)
    once = len(calls)
    loss_again, grads_again = gradients(again)
    assert once == 0 and len(calls) > 0
    assert loss == loss_again
    assert grads.keys() == grads_again.keys() and all(torch.equal(grads[name], grads_again[name]) for name in grads)
    assert packing.current.get() is None


def test_a_family_whose_layers_cannot_be_computed_again_is_refused():
    model = network()
    model.supports_gradient_checkpointing = False
    with pytest.raises(UsageError, match="models of type bert cannot compute their layers again"):
        recompute_layers(model)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "deberta-v2"])
def test_the_last_layers_start_from_random_weights_the_same_on_every_rank(family):
    before, after, other = network(family), network(family), network(family)
    line = reinitialise(after, 2, seed=3)
    assert line.startswith("layers 1 to 2") and "of 3 layers start from random weights" in line
    torch.manual_seed(99)  # nothing else's randomness counts
    reinitialise(other, 2, seed=3)
    assert all(torch.equal(each, same) for each, same in zip(after.parameters(), other.parameters(), strict=True))
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        is_drawn = (trainable.layer_of(name) or 0) > 0 or ".pooler." in name
        is_matrix = old.ndim > 1 and "norm" not in name.lower()
        if is_matrix:
            assert torch.equal(old, new) != is_drawn, name
            assert new.detach().std().item() == pytest.approx(0.02, rel=0.5)
        elif not is_drawn:
            assert torch.equal(old, new), name


def test_more_layers_than_there_are_and_shared_layers_are_refused():
    with pytest.raises(UsageError, match="4 is more than the model has; 1 to 3"):
        reinitialise(network(), 4, seed=1)
    with pytest.raises(UsageError, match="a model whose layers have weights of their own"):
        reinitialise(network("albert"), 1, seed=1)
