"""A mask that the host decides on changes no bit, of any family it is made for, and no model reads it back."""

from __future__ import annotations

import pytest
import torch
from reads import Reads
from ringtune.train import masks
from test_first_token import IDS, MASK, classifier

WHOLE = torch.ones_like(MASK)


def outcome(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return logits and gradients."""
    model.zero_grad()
    torch.manual_seed(3)
    logits = model.train()(**batch).logits
    logits.square().sum().backward()
    return [logits.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]


@pytest.mark.parametrize("mask", [MASK, WHOLE], ids=["padded", "whole"])
@pytest.mark.parametrize("family", masks.BIDIRECTIONAL)
def test_logits_and_gradients_are_bitwise_those_of_the_models_own_mask(family, mask):
    model = classifier(family)
    assert masks.takes_known_mask(model)
    plain = {"input_ids": IDS, "attention_mask": mask}
    known = masks.for_every_token(masks.known_mask(plain))
    assert (masks.MASK in known) == (mask is MASK)
    for one, other in zip(outcome(model, plain), outcome(model, known), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mask", [MASK, WHOLE], ids=["padded", "whole"])
@pytest.mark.parametrize("family", masks.BIDIRECTIONAL)
def test_no_model_reads_it_back_from_its_device(family, mask):
    model, plain = classifier(family), {"input_ids": IDS, "attention_mask": mask}
    known = masks.for_every_token(masks.known_mask(plain))
    with Reads() as reads:
        model(**plain)
    assert reads.found, "the model's own way reads the mask: if it no longer does, masks.py can go"
    with Reads() as reads:
        model(**known)
    assert reads.found == []


@pytest.mark.parametrize("change", [{"model_type": "modernbert"}, {"_attn_implementation": "eager"}])
def test_other_models_keep_their_own_mask(change):
    model = classifier("bert")
    for name, value in change.items():
        setattr(model.config, name, value)
    assert not masks.takes_known_mask(model)
