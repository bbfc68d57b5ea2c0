"""The gradient of the word embeddings by rows is bitwise the dense one, on one rank; tests/parallel has several."""

from __future__ import annotations

import pytest
import torch
from ringtune.train import embedding
from ringtune.train.clip import clip
from transformers import BertConfig, BertForMaskedLM
from words import NUM_TOKENS, batch, classifier, reducer_of, same, train


@pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_fifty_steps_by_rows_are_bitwise_those_of_the_dense_gradient(family, exact):
    results = []
    for by_rows in (False, True):
        model = classifier(family)
        reducer = reducer_of(model, exact=exact, by_rows=by_rows)
        assert isinstance(reducer, embedding.EmbeddingReducer) == by_rows
        start = model.get_input_embeddings().weight.clone()
        results.append(train(model, reducer, range(50)))
        moved = (model.get_input_embeddings().weight != start).all(dim=1)
        assert moved[2:].all()
        filled = (model.get_input_embeddings().weight.grad != 0).any(dim=1).sum()
        assert 5 < filled < 60  # the others only decayed, or went on by momentum
    assert same(*results)


def test_each_row_of_a_shard_has_the_bits_of_the_dense_gradient_and_padding_has_none():
    torch.manual_seed(0)
    ids = (torch.rand(16, 60) ** 4 * NUM_TOKENS).long()  # some tokens hundreds of times: their order of addition shows
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        layer = torch.nn.Embedding(NUM_TOKENS, 48, padding_idx=1, sparse=sparse)
        (layer(ids) * torch.randn(16, 60, 48)).sum().backward()
        found.append(layer.weight.grad)
    rows = embedding._each_once(found[1])
    assert torch.equal(torch.zeros_like(found[0]).index_copy(0, rows.numbers, rows.values), found[0])
    assert (ids == 1).any() and 1 not in rows.numbers and len(rows.numbers) == len(ids.unique()) - 1


def test_a_gradient_that_clipping_made_nan_is_gone_in_the_next_step():
    """As after an overflow of a scaled loss: the factor is NaN. Rows without a gradient are not multiplied by it."""
    results = []
    for has_overflow in (False, True):
        model = classifier()
        reducer = reducer_of(model)
        if has_overflow:
            reducer.backward(model(**batch(3, 0)).logits.sum() * 1e38 * 1e38, last=True)
            reducer.finish()
            weight = model.get_input_embeddings().weight
            clip(model.parameters(), 1.0, weight, reducer.filled)
            assert weight.grad[reducer.filled].isnan().all() and not weight.grad.isnan().all()
        results.append(train(model, reducer, range(2)))
    assert same(*results)


def test_a_model_that_reads_the_matrix_in_another_way_too_has_its_whole_gradient():
    results = []
    for by_rows in (False, True):
        model = classifier()
        reducer = reducer_of(model, exact=True, by_rows=by_rows)
        for step in (0, 1):
            model.zero_grad(set_to_none=True)
            loss = model(**batch(step, 0)).logits.sum()
            weight = model.get_input_embeddings().weight
            reducer.backward(loss + (weight.square().sum() if step == 0 else 0.0), last=True)
            reducer.finish()
            results.append(weight.grad.clone())
    torch.testing.assert_close(results[2:], results[:2])
    assert results[2][2:].all() and not results[3].all()


def test_the_gradient_stays_in_one_buffer():
    model = classifier()
    reducer = reducer_of(model)
    places = set()
    for step in range(3):
        train(model, reducer, range(step, step + 1))
        places.add(model.get_input_embeddings().weight.grad.data_ptr())
    assert len(places) == 1


def test_where_rows_do_not_do_the_gradient_stays_dense(monkeypatch):
    small = classifier()
    assert embedding.word_embeddings(small) is None and not small.get_input_embeddings().sparse
    monkeypatch.setattr(embedding, "SMALLEST", 0)
    assert embedding.word_embeddings(small) is not None
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    tied = BertForMaskedLM(BertConfig(vocab_size=20, **sizes))
    frozen = classifier()
    frozen.get_input_embeddings().weight.requires_grad_(False)
    on_a_device = classifier().to("meta")
    scaled = classifier()
    scaled.get_input_embeddings().scale_grad_by_freq = True
    for model in (tied, frozen, on_a_device, scaled):
        assert embedding.word_embeddings(model) is None
        assert not model.get_input_embeddings().sparse
