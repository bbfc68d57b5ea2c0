"""Dropout drawn four elements at a time, and the attention of packed rows that is computed with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ringtune.train.attention import attend
from ringtune.train.attention_dropout import LONG, attend_with_dropout
from ringtune.train.dropout import Dropout, draw_in_fours, draw_kept, rounded, scale_of
from ringtune.train.packing import Packer, current, packing_of
from test_packing import LENGTHS, packed, rows_of

PACKING = packing_of(np.array([5, 5, 4, 2, 9]), 10)  # groups of even and uneven rows, and of one


def tensors() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(25, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.1, 0.5, 0.999, 1.0])
def test_elements_are_kept_at_the_rate_and_their_mean_stays(rate):
    torch.manual_seed(1)
    kept = draw_kept((1001, 999), rate).double()
    error = 5 * (rate * (1 - rate) / kept.numel()) ** 0.5
    assert kept.shape == (1001, 999) and abs(kept.mean() - (1 - rounded(rate))) <= error
    assert abs(rounded(rate) - rate) <= 2**-17 and scale_of(rate) * (1 - rounded(rate)) == (1 if rate < 1 else 0)
    neighbours = (kept[:, 1:] * kept[:, :-1]).mean() - kept.mean() ** 2  # of one number of 64 bits
    assert abs(neighbours) <= 10 * error


def test_a_layer_draws_by_torchs_seed_in_training_and_nothing_otherwise():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.25))
    draw_in_fours(model)
    assert isinstance(model[1], Dropout)
    ones = torch.ones(7, 9, requires_grad=True)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model[1](ones))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert sorted(set(found[0].flatten().tolist())) == pytest.approx([0, 4 / 3])
    found[0].sum().backward()
    assert torch.equal(ones.grad, found[0].detach())
    assert model.eval()[1](ones) is ones


@pytest.mark.parametrize("window", [None, 2])
def test_the_gradient_of_attention_is_that_of_its_differences(window):
    assert {each.places is None for each in PACKING.groups} == {True, False}

    def attention(*several: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return attend_with_dropout(PACKING, *several, 0.3, 0.7, window)

    assert torch.autograd.gradcheck(attention, tensors())


@pytest.mark.parametrize("window", [None, 2])
def test_without_a_dropped_element_attention_is_pytorchs(window):
    several = tensors()
    found = attend_with_dropout(PACKING, *several, 1e-9, 0.7, window)
    by_torch = [each.transpose(0, 1)[None] for each in several]
    token = current.set(PACKING)
    try:
        expected = attend(torch.nn.Module(), *by_torch, None, scaling=0.7, sliding_window=window)[0][0]
    finally:
        current.reset(token)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    grads = [torch.autograd.grad((each * weight).sum(), several) for each in (found, expected)]
    torch.testing.assert_close(*grads)


def test_a_gradient_that_is_handed_on_is_left_as_it_is():
    found = attend_with_dropout(PACKING, *tensors(), 0.3, 0.7, None)
    gradient = torch.ones_like(found)
    found.backward(gradient)
    assert (gradient == 1).all()


@pytest.mark.parametrize("longest", [LONG - 1, LONG])
def test_long_rows_of_bf16_are_computed_in_it_within_its_rounding_and_short_ones_in_fp32(longest, monkeypatch):
    packing = packing_of(np.array([longest, longest, longest - 9, longest - 30]), 1e9)
    formats, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda one, other: formats.append(one.dtype) or bmm(one, other))
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        torch.manual_seed(0)
        several = [torch.randn(4 * longest - 39, 2, 32).bfloat16().to(dtype).requires_grad_() for _ in range(3)]
        weight = torch.randn(4 * longest - 39, 2, 32).bfloat16()
        torch.manual_seed(3)
        found = attend_with_dropout(packing, *several, 0.1, 0.2, None)
        assert found.dtype == dtype
        results.append([found, *torch.autograd.grad((found * weight).sum(), several)])
    assert set(formats) == {torch.float64, torch.bfloat16 if longest == LONG else torch.float32}
    for exact, rounded_off in zip(*results, strict=True):
        error = (rounded_off.double() - exact).norm() / exact.norm()
        assert error < 2**-6  # a few roundings to 8 bits, 2**-9 each


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_tokens_added_for_an_even_number_change_nothing(family):
    model, batch = packed(family), rows_of(LENGTHS)
    results = []
    for multiple in (1, 8, 64):
        packer = Packer.of(model, multiple=multiple)
        ready = packer.pack(batch)
        assert ready["input_ids"].shape == (1, packer.computed(int(LENGTHS.sum())))
        model.zero_grad()
        logits = model(**ready).logits
        logits.square().sum().backward()
        results.append({"logits": logits.detach(), **{name: each.grad for name, each in model.named_parameters()}})
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-12)
