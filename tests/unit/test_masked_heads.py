"""Heads of masked tokens: reading the masked tokens alone, packed or not, changes no number; nor do tied embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import stories
import torch
from ringtune.train import embedding, gradient
from ringtune.train import model as models
from ringtune.train.attention import PACKED_TYPES, packer_of
from ringtune.train.batches import on_device
from ringtune.train.evaluate import outputs_of
from ringtune.train.step import Precision
from ringtune.train.task.masked_lm import MaskedLM
from ringtune.train.task.masking import Masking, Vocabulary
from ringtune.train.task.sequence import LABELS
from ringtune.train.tokens import term_places
from test_first_token import SIZES
from tiny import make_tokenizer
from transformers import AutoConfig, AutoModelForMaskedLM
from words import Alone

CPU = torch.device("cpu")
FAMILIES = (*PACKED_TYPES, "deberta-v2")


def filler(family: str = "bert", **more: object) -> torch.nn.Module:
    """Return a model whose numbers depend visibly on every token and every position."""
    torch.manual_seed(2)
    settings = {**SIZES, "initializer_range": 0.4, "vocab_size": 80, "pad_token_id": 0, **more}
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    if family == "modernbert":
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    return model


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return MaskedLM(None, Masking(0.3, True, True, Vocabulary.of(tokenizer))), tokenizer


@pytest.fixture(scope="module")
def features(task):
    found, tokenizer = task
    return found.encode(pa.RecordBatch.from_pydict({"text/0": list(stories.texts(12, 3))}), tokenizer, 24)


def plain_losses(model, task: MaskedLM, features, seed: int = 0) -> torch.Tensor:
    """Return the loss of each masked token as transformers' own model gives it, of a padded batch of all tokens."""
    batch = task.collate(features, np.arange(features.num_features), seed)
    names = [name for name in batch if name in ("input_ids", "attention_mask", "token_type_ids")]
    if model.config.model_type == "distilbert":
        names.remove("token_type_ids")
    logits = model(**{name: batch[name] for name in names}).logits
    where = batch["masked_places"][: len(batch[LABELS])]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1)[where].float(), batch[LABELS], reduction="none")


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_model_of_transformers(task, features, family):
    found, _ = task
    model = filler(family).double()
    expected = plain_losses(model, found, features)
    expected.sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    line = models._compute_no_more(model, found)
    assert ("packed" in line) == (family in PACKED_TYPES)
    packer = packer_of(model, CPU, None)
    losses = torch.zeros_like(expected)
    for chosen in ([2, 0, 1], list(range(3, features.num_features))):
        batch = on_device(found.collate(features, chosen, seed=0), packer, CPU)
        inputs = {name: each for name, each in found.inputs(batch).items() if name != "token_type_ids"}
        output = model(**(inputs if family == "distilbert" else found.inputs(batch)))
        assert output.logits.shape[1] < features.lengths[chosen].sum() / 2  # the masked tokens alone
        mine = found.losses(output, batch, 0.0)
        mine.sum().backward()
        losses[term_places(features.num_terms, np.array(chosen))] = mine
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    for name, each in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(
                each.grad, gradients[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_without_places_the_head_reads_all_tokens(task, features, family):
    model = filler(family)
    batch = task[0].collate(features, [0], seed=0)
    ids = batch["input_ids"]
    expected, states = model(input_ids=ids).logits, model.base_model(input_ids=ids)[0]
    models._compute_no_more(model, task[0])
    model(**task[0].inputs(batch))  # leaves nothing behind
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    if family == "deberta-v2":  # the body of one whose rows are packed does not work by itself
        model(**task[0].inputs(batch))
        torch.testing.assert_close(model.base_model(input_ids=ids)[0], states)


def test_outputs_are_loss_and_whether_the_best_token_is_right_and_their_scores(task, features):
    found, _ = task
    model = filler()
    expected = plain_losses(model, found, features).detach()
    models._compute_no_more(model, found)
    outputs = outputs_of(model, found, features, np.arange(features.num_features), Precision(CPU, None))
    torch.testing.assert_close(outputs[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert outputs.shape == (int(features.num_terms.sum()), 2)
    values, targets = outputs.numpy(), found.targets(features)
    assert found.has_label(targets).all()
    scores = found.scores([(values, targets)])
    assert scores.num_rows == features.num_features and scores.details == {"num_masked": len(values)}
    assert scores.values["loss"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert scores.values["perplexity"] == pytest.approx(np.exp(scores.values["loss"]))
    assert scores.values["accuracy"] == values[:, 1].mean()
    cut = int(features.num_terms[:5].sum())
    parts = [(values[:cut], targets[:cut]), (values[cut:], targets[cut:])]
    assert found.scores(parts).values == scores.values and found.scores([]) is None
    assert found.scores([(np.array([[1e9, 0.0]]), np.array([0]))]).values["perplexity"] == float("inf")


# The word embeddings, which most of these models have as the last layer of their head, too


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_matrix_has_its_whole_gradient(task, features, family, monkeypatch):
    """Each step moves all its rows; the sum by rows must not be chosen for it."""
    monkeypatch.setattr(embedding, "SMALLEST", 0)
    model = filler(family)
    assert embedding.word_embeddings(model) is None and not model.get_input_embeddings().sparse
    model.get_input_embeddings().weight.grad = None
    plain_losses(model, task[0], features).sum().backward()
    assert model.get_input_embeddings().weight.grad.any(dim=1).all()


@pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_reducers_give_the_gradient_of_plain_backward(task, features, tied, exact, monkeypatch):
    monkeypatch.setattr(embedding, "SMALLEST", 0)
    found, _ = task
    results = []
    for reduces in (False, True):
        model = filler("bert", tie_word_embeddings=tied)
        models._compute_no_more(model, found)
        loss = []
        words = embedding.word_embeddings(model) if reduces else None
        assert (words is not None) == (reduces and not tied)
        others = {name: each for name, each in model.named_parameters() if each is not words}
        reducer = gradient.OrderFreeReducer(others, Alone, 2) if exact else gradient.OverlappedReducer(others, Alone)
        if words is not None:
            reducer = (
                embedding.OrderFreeEmbeddingReducer(reducer, words, Alone, 2)
                if exact
                else embedding.EmbeddingReducer(reducer, words, Alone)
            )
        packer = packer_of(model, CPU, None)
        for number, chosen in enumerate(([0, 1, 2], [3, 4])):
            batch = on_device(found.collate(features, chosen, seed=1), packer, CPU)
            loss = found.losses(model(**found.inputs(batch)), batch, 0.0).sum() / 10
            if reduces:
                reducer.backward(loss, last=number == 1)
            else:
                loss.backward()
        if reduces:
            reducer.finish()
        results.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    found_ones = {name: results[1][name] for name in results[0]}  # what no loss reaches has none, or zeros
    torch.testing.assert_close(found_ones, results[0], rtol=1e-4, atol=1e-5)
