"""Every optimizer makes the updates of its authors and survives a checkpoint; layers learn at their own rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ringtune.train import config, optimizer, trainable
from ringtune.train.contract import UsageError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.optimization import Adafactor

SMALL = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
FAMILIES = {
    "bert": {},
    "roberta": {"max_position_embeddings": 40},
    "electra": {"embedding_size": 8},
    "distilbert": {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
    "albert": {"embedding_size": 8},
}


def settings(**changes):
    return config.TrainConfig("m", weight_decay=0.1, **changes)


def network(family="bert"):
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **SMALL, **FAMILIES[family]))


def toy():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def trained(model, updates, num_steps=5, rate=1e-2):
    """Make some updates from gradients that depend on nothing but their number."""
    for step in range(num_steps):
        torch.manual_seed(step)
        for each in model.parameters():
            each.grad = torch.randn_like(each)
        optimizer.set_learning_rate(updates, rate)
        updates.step()
    return [each.detach().clone() for each in model.parameters()]


def theirs(name, model):
    matrices, others = ([each for each in model.parameters() if (each.ndim >= 2) == is_one] for is_one in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    for group in groups:
        group[optimizer.RATE] = 1.0
    return {
        "adamw_torch_fused": lambda: torch.optim.AdamW(groups, lr=1e-2),
        "adafactor": lambda: Adafactor(groups, lr=1e-2, scale_parameter=False, relative_step=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    }[name]()


@pytest.mark.parametrize("name", ["adamw_torch_fused", "adafactor", "sgd"])
def test_updates_are_those_of_the_library(name):
    ours, others = toy(), toy()
    mine = trained(ours, optimizer.make_optimizer(ours, settings(optim=name)))
    for one, other in zip(mine, trained(others, theirs(name, others)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_lamb_is_algorithm_2_of_its_paper():
    model = toy()
    before = [each.detach().numpy().astype(np.float64) for each in toy().parameters()]
    after = trained(model, optimizer.make_optimizer(model, settings(optim="lamb")))
    moments = [(np.zeros_like(each), np.zeros_like(each)) for each in before]
    for step in range(5):
        torch.manual_seed(step)
        gradients = [torch.randn_like(each).numpy().astype(np.float64) for each in model.parameters()]
        for number, gradient in enumerate(gradients):
            first, second = moments[number]
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            moments[number] = first, second
            update = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
            if before[number].ndim >= 2:
                update = update + 0.1 * before[number]
                update = update * np.linalg.norm(before[number]) / np.linalg.norm(update)
            before[number] = before[number] - 1e-2 * update
    for mine, expected in zip(after, before, strict=True):
        np.testing.assert_allclose(mine.numpy(), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw_torch_fused", "adafactor", "lamb", "sgd"])
def test_the_state_of_an_optimizer_survives_a_checkpoint(name, tmp_path):
    from safetensors.torch import load_file, save_file

    whole, part = toy(), toy()
    expected = trained(whole, optimizer.make_optimizer(whole, settings(optim=name)), num_steps=6)
    first = optimizer.make_optimizer(part, settings(optim=name))
    trained(part, first, num_steps=4)
    save_file(optimizer.optimizer_tensors(part, first), tmp_path / "o.safetensors")
    second = optimizer.make_optimizer(part, settings(optim=name))
    optimizer.restore_optimizer(part, second, load_file(tmp_path / "o.safetensors"), "here")
    for step in (4, 5):
        torch.manual_seed(step)
        for each in part.parameters():
            each.grad = torch.randn_like(each)
        optimizer.set_learning_rate(second, 1e-2)
        second.step()
    assert all(torch.equal(one, other) for one, other in zip(part.parameters(), expected, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_learn_slower_the_further_they_are_from_the_head(family):
    rates = trainable.rates_of(network(family), 0.5)
    shared = family == "albert"
    body = {round(-np.log2(rate)) for name, rate in rates.items() if ".layer" in name}
    assert body == (set() if shared else {1, 2, 3}), rates
    words = next(rate for name, rate in rates.items() if "word_embeddings" in name)
    assert words == (0.5 if shared else 0.5**4)
    head = [rate for name, rate in rates.items() if name.startswith(("classifier", "pre_classifier", "pooler"))]
    assert head and set(head) == {1.0}
    assert set(trainable.rates_of(network(family), 1.0).values()) == {1.0}


def test_each_group_gets_its_share_of_the_learning_rate():
    model = network()
    updates = optimizer.make_optimizer(model, settings(layerwise_lr_decay=0.5))
    optimizer.set_learning_rate(updates, 1.0)
    found = {each: group["lr"] for group in updates.param_groups for each in group["params"]}
    rates = trainable.rates_of(model, 0.5)
    assert all(found[each] == rates[name] for name, each in model.named_parameters())
    decays = {each: group["weight_decay"] for group in updates.param_groups for each in group["params"]}
    assert all(decays[each] == (0.1 if each.ndim >= 2 else 0.0) for each in model.parameters())
    assert len(optimizer.make_optimizer(model, settings()).param_groups) == 2


def test_parameters_are_frozen_by_the_patterns_of_their_names():
    model = network()
    line = trainable.freeze(model, ["bert.embeddings.*", "bert.encoder.layer.[01].*"])
    left = set(trainable.trainable(model))
    assert {name for name, _ in model.named_parameters()} - left == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("bert.embeddings.", "bert.encoder.layer.0.", "bert.encoder.layer.1."))
    }
    assert line.startswith("frozen: 37 of ") and "% of all numbers are trained" in line, line
    with pytest.raises(UsageError, match="--freeze: no parameter's name matches 'bert.embedding.\\*'"):
        trainable.freeze(model, ["bert.embedding.*"])
    with pytest.raises(UsageError, match="--freeze: every parameter matches"):
        trainable.freeze(model, ["*"])
