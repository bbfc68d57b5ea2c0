"""Answers that are held close to an earlier run's: the divergence of what both give, and its gradient once a step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from earlier_runs import TWO, write_model
from ringtune.train import earlier, flags, keep_answers, model, step
from ringtune.train.checkpoint import Best, RunState
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.gradient import OverlappedReducer
from ringtune.train.objective import Objective
from ringtune.train.task.classification import Classification
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.regression import Regression
from ringtune.train.task.token_classification import TokenClassification
from test_first_token import IDS, MASK, classifier
from test_step import Rows, make_stepper

CPU = torch.device("cpu")
BATCH = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.zeros(len(IDS), dtype=torch.long)}


def kullback_leibler(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return four times the divergence of classes at a temperature of 2, from its definition, in float64."""
    found, wanted = (np.exp(each / 2) / np.exp(each / 2).sum(-1, keepdims=True) for each in (now, before))
    return 4 * (wanted * np.log(wanted / found)).sum(-1)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Classification(None, ("a", "b", "c")), kullback_leibler),
        (TokenClassification(None, ("O", "B-A", "I-A"), "iob2"), kullback_leibler),
        (
            MultiLabel(None, ("a", "b", "c")),
            lambda now, before: kullback_leibler(*(np.stack([each, 0 * each], -1) for each in (now, before))).mean(-1),
        ),
        (Regression(None), lambda now, before: ((now - before) ** 2).mean(-1)),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_the_divergence_is_that_of_its_definition(task, expected):
    torch.manual_seed(1)
    now, before = (torch.randn(5, 1 if task.kind == "regression" else 3) * 2 for _ in range(2))
    found = keep_answers.divergence(task, now, before)
    np.testing.assert_allclose(found, expected(now.double().numpy(), before.double().numpy()), rtol=1e-4)
    assert keep_answers.divergence(task, before, before).abs().max() < 1e-6


@pytest.fixture
def run(tmp_path, workshop):
    return write_model(tmp_path / "old", TWO, workshop.model)


def settings(run, **changes) -> TrainConfig:
    return TrainConfig(str(run), train_file="rows.csv", init_from=str(run), keep_answers=0.5, **changes)


def test_a_run_begins_with_the_earlier_answers_and_new_classes_are_free(run):
    lines: list[str] = []
    found = keep_answers.read(settings(run), CPU, None, lines.append)
    assert lines == [
        f"keep_answers: 0.5 times how far answers are from those of {run} is minimised, too; each step computes that "
        "model as well"
    ]
    task = Classification(TWO.columns, ("down", "up", "odd"))
    network = model.load_model(settings(run), task).eval()
    assert found.losses(task, network(**task.inputs(BATCH)), BATCH).abs().max() < 1e-6
    with torch.no_grad():
        network.classifier.weight[0] += 1.0
    output = network(**task.inputs(BATCH))
    losses = found.losses(task, output, BATCH)
    before = found.network(**task.inputs(BATCH)).logits.double().numpy()
    expected = 0.5 * kullback_leibler(output.logits.detach().double().numpy()[:, :2], before)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-3, atol=1e-6)
    losses.sum().backward()
    assert not network.classifier.weight.grad[2].any() and network.classifier.weight.grad[:2].any()
    assert all(each.grad is None for each in found.network.parameters())


class Answering(Rows):
    """Stands in for a task of classes."""

    size, kind, has_several_labels = 1, "classification", False

    def outputs(self, output, batch):
        return output.logits


def test_a_step_has_the_gradient_of_both_and_the_loss_without_it():
    torch.manual_seed(2)
    other = classifier("bert", initializer_range=0.4).requires_grad_(False)
    found = {}
    for with_answers in (False, True):
        rows, network = Answering(), classifier("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        stepper = make_stepper(network, torch.optim.SGD(network.parameters()), None, rows)
        stepper.reducer = OverlappedReducer(dict(network.named_parameters()), rows)
        stepper.objective = Objective()
        stepper.earlier = keep_answers.EarlierAnswers(other, 0.7, "") if with_answers else None
        shards = [np.array([0, 1]), np.array([2])]
        found[with_answers] = stepper.take(step.StepPlan(1, 0, 3, 3, shards, 0, 0.0), stop_requested=False)
    network = classifier("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    output = network(input_ids=IDS[:3], attention_mask=MASK[:3])
    with torch.no_grad():
        before = other(input_ids=IDS[:3], attention_mask=MASK[:3]).logits
    plain = rows.losses(output, {}, 0.0).sum() / 3
    whole = plain + 0.7 * keep_answers.divergence(rows, output.logits, before).sum() / 3
    gradients = torch.autograd.grad(whole, network.parameters(), allow_unused=True)
    norm = torch.cat([each.flatten() for each in gradients if each is not None]).norm()
    assert found[True].loss == found[False].loss == pytest.approx(float(plain), rel=1e-5)
    assert found[True].grad_norm == pytest.approx(float(norm), rel=1e-4) != found[False].grad_norm


def test_a_run_goes_on_beside_the_model_it_started_with_or_not_at_all(run):
    state = RunState(1, 2, 0, 0, 1, Best(), {}, {}, "", "", {}, start_digest="0")
    with pytest.raises(UsageError, match="its weights are not what they were when the run started"):
        keep_answers.read(settings(run), CPU, state, print)


def test_a_run_that_began_without_it_does_not_go_on_with_it():
    saved = dataclasses.asdict(TrainConfig("m"))
    del saved["keep_answers"]  # of a run that is older than the flag
    flags.refuse_changes(saved, TrainConfig("m"), "start anew")
    with pytest.raises(UsageError, match="--keep_answers: 1.0 is not what the run to be resumed has, 0.0"):
        flags.refuse_changes(saved, TrainConfig("m", keep_answers=1.0), "start anew")


def test_it_needs_a_run_and_the_tokens_that_it_knows(tmp_path):
    assert keep_answers.read(TrainConfig("m"), CPU, None, print) is None
    for wrong, message in (
        ({"keep_answers": 1.0}, "--keep_answers: there is no run to stay close to"),
        ({"keep_answers": -1.0}, "--keep_answers: -1.0 is negative"),
        ({"keep_answers": 1.0, "init_from": "m", "resize_token_embeddings": True}, "does not know the new tokens"),
    ):
        with pytest.raises(UsageError, match=message):
            earlier.check(TrainConfig("m", **wrong))
