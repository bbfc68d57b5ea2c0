"""Clipping leaves out the rows of the word embeddings that have no gradient, and no bit shows it."""

from __future__ import annotations

import pytest
import torch
from ringtune.train.clip import clip

NUM_ROWS, WIDTH = 500, 48


def parameters(num_filled=40):
    """Return word embeddings and two others with gradients, and the numbers of the rows that are filled."""
    torch.manual_seed(3)
    words, matrix, bias = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((NUM_ROWS, WIDTH), (30, 20), (7,)))
    filled = torch.randperm(NUM_ROWS)[:num_filled].sort().values
    words.grad = torch.zeros(NUM_ROWS, WIDTH).index_copy(0, filled, torch.randn(num_filled, WIDTH))
    words.grad[filled[:3]] = 0.0  # filled, with nothing
    matrix.grad, bias.grad = torch.randn(30, 20), torch.randn(7)
    return words, [matrix, words, bias], filled


@pytest.mark.parametrize("max_norm", [0.5, 1e9, float("inf")])
@pytest.mark.parametrize("num_filled", [3, 40, NUM_ROWS])
def test_by_rows_it_has_the_bits_of_the_dense_one_and_torchs_norm(max_norm, num_filled):
    found = []
    for by_rows in (True, False):
        words, all_of_them, filled = parameters(num_filled)
        found.append([clip(all_of_them, max_norm, words, filled if by_rows else None)])
        found[-1] += [each.grad for each in all_of_them]
    assert all(map(torch.equal, *found))
    _, plain, _ = parameters(num_filled)
    norm = torch.nn.utils.clip_grad_norm_(plain, max_norm)
    torch.testing.assert_close(found[0], [norm, *(each.grad for each in plain)])
    if max_norm == 0.5:
        torch.testing.assert_close(torch.nn.utils.get_total_norm(found[0][1:]).item(), 0.5, rtol=1e-5, atol=0)


def test_a_model_without_word_embeddings_or_with_frozen_ones_is_clipped_as_torch_does_it():
    words, all_of_them, _ = parameters()
    words.grad = None
    norm = clip(all_of_them, 0.5, words)
    _, plain, _ = parameters()
    plain[1].grad = None
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(plain, 0.5))
    assert torch.equal(all_of_them[0].grad, plain[0].grad)
    assert torch.equal(clip(all_of_them, 0.5), torch.nn.utils.clip_grad_norm_(plain, 0.5))


def test_a_gradient_that_is_not_finite_has_such_a_norm():
    words, all_of_them, filled = parameters()
    words.grad[filled[5], 2] = float("nan")
    assert clip(all_of_them, 1.0, words, filled).isnan()
