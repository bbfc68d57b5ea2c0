"""Parameters that are held close to an earlier run's: the penalty's gradient, once a step, and not on new rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ringtune.train import embedding, keep_close, step
from ringtune.train.checkpoint import Best, RunState
from ringtune.train.clip import clip
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.gradient import OverlappedReducer
from safetensors.torch import save_file
from test_first_token import classifier
from test_step import Line, Rows, Script, make_stepper
from torch import nn


class Small(nn.Module):
    """A body and a head of four classes, two of which the earlier run had."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 4)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


@pytest.fixture
def start(tmp_path):
    """Return settings whose earlier run has other weights, and these."""
    torch.manual_seed(2)
    weights = {
        "body.weight": torch.randn(3, 3),
        "body.bias": torch.randn(3),
        "head.weight": torch.randn(2, 3),
        "head.bias": torch.randn(2),
        "frozen": torch.zeros(2),
    }
    save_file(weights, tmp_path / "model.safetensors")
    return TrainConfig("m", init_from=str(tmp_path), keep_close=0.3), weights


def state(digest: str | None) -> RunState:
    return RunState(1, 2, 0, 0, 1, Best(), {}, {}, "", "", {}, start_digest=digest)


def silent(line: str) -> None:
    pass


def test_the_gradient_is_that_of_the_penalty_on_what_the_earlier_run_had(start):
    settings, weights = start
    network = Small()
    found = keep_close.read(settings, network, None, silent)
    inputs = torch.randn(5, 3)
    loss = network.head(network.body(inputs)).square().mean()
    parts = [(network.body.weight, "body.weight"), (network.body.bias, "body.bias")]
    parts += [(network.head.weight[:2], "head.weight"), (network.head.bias[:2], "head.bias")]
    penalty = 0.3 / 2 * sum((each - weights[name]).square().sum() for each, name in parts)
    trained = [each for each in network.parameters() if each.requires_grad]
    expected = torch.autograd.grad(loss + penalty, trained, retain_graph=True)
    loss.backward()
    plain = network.head.weight.grad.clone()
    found.pull()
    for each, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(each.grad, gradient)
    assert torch.equal(network.head.weight.grad[2:], plain[2:])  # of new classes
    assert network.frozen.grad is None


def test_a_buffer_that_is_the_gradient_stays_as_it_is(start):
    """Of the word embeddings' buffer only filled rows are cleared: what is added to others would stay."""
    network = Small()
    found = keep_close.read(start[0], network, None, silent)
    buffer = torch.zeros(3, 3)
    network.body.weight.grad = buffer
    found.pull()
    assert not buffer.any() and network.body.weight.grad.any()
    assert clip([network.body.weight], 1.0) > 0


def test_the_penalty_is_added_to_the_reduced_gradient_and_clipped_with_it(monkeypatch):
    script, model = Script(), Line(1, 1)
    stepper = make_stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), script, script)
    stepper.start = SimpleNamespace(pull=lambda: script.events.append("pulled"))
    real_clip = step.clip
    monkeypatch.setattr(step, "clip", lambda *words: (script.events.append("clipped"), real_clip(*words))[1])
    stepper.take(step.StepPlan(1, 0, 2, 2, [np.array([0]), np.array([1])], 0, 0.1), stop_requested=False)
    assert script.events == ["backward", "backward, last", "reduced", "pulled", "clipped"]


def test_rows_of_the_word_embeddings_that_a_step_does_not_fill_are_pulled_too(monkeypatch):
    monkeypatch.setattr(embedding, "SMALLEST", 0)

    def trained(*, by_rows: bool) -> dict[str, torch.Tensor]:
        rows, model = Rows(), classifier("bert")
        rows.size = 1
        words = embedding.word_embeddings(model) if by_rows else None
        others = {name: each for name, each in model.named_parameters() if each is not words}
        reducer = OverlappedReducer(others, rows)
        if words is not None:
            reducer = embedding.EmbeddingReducer(reducer, words, rows)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        stepper = make_stepper(model, optimizer, reducer, rows)
        pairs = tuple((each, each.detach() + 0.1) for each in model.parameters())
        stepper.start = keep_close.StartWeights(pairs, 0.5, "")
        for number in range(1, 4):
            part = np.array([number % 3])
            stepper.take(step.StepPlan(number, 0, 1, 1, [part], 0, 0.01), stop_requested=False)
        return model.state_dict()

    dense, sparse = trained(by_rows=False), trained(by_rows=True)
    before = classifier("bert").get_input_embeddings().weight
    moved = sparse[next(name for name in sparse if name.endswith("word_embeddings.weight"))] - before
    assert (moved.abs().sum(dim=1) > 0).sum() > len(before) / 2  # the texts have a few tokens only
    for name, each in dense.items():
        torch.testing.assert_close(sparse[name], each)


def test_a_run_goes_on_with_the_weights_it_started_with_or_not_at_all(start, tmp_path):
    settings, weights = start
    lines = []
    found = keep_close.read(settings, Small(), None, lines.append)
    assert "0.3 / 2 times the squared distance of 20 numbers" in lines[0]
    assert keep_close.read(settings, Small(), state(found.digest), silent).digest == found.digest
    save_file({**weights, "head.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="its weights are not what they were when the run started"):
        keep_close.read(settings, Small(), state(found.digest), silent)


def test_it_needs_a_run_to_stay_close_to_and_parameters_that_come_from_it(tmp_path):
    from ringtune.train import earlier

    assert keep_close.read(TrainConfig("m"), Small(), None, silent) is None
    with pytest.raises(UsageError, match="there is no run to stay close to"):
        earlier.check(TrainConfig("m", keep_close=0.1))
    with pytest.raises(UsageError, match=r"--keep_close: -0.1 is negative"):
        earlier.check(TrainConfig("m", keep_close=-0.1))
    for name, value in (("lora_r", 4), ("reinit_layers", 1)):
        with pytest.raises(UsageError, match=f"--keep_close --{name}: both are set"):
            earlier.check(TrainConfig(str(tmp_path), init_from=str(tmp_path), keep_close=0.1, **{name: value}))
