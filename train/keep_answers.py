"""Hold a model's answers close to those of an earlier run: distillation.

Li and Hoiem 2016, "Learning without Forgetting": the earlier model answers each row, too, and how far the new answers
for its classes are from these is added to the loss. Answers are softened by a temperature, whose square keeps the size
of the gradient (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from ringtune.train import keep_close, model
from ringtune.train.checkpoint import RunState
from ringtune.train.config import TrainConfig
from ringtune.train.task import Task
from ringtune.train.task.token_classification import TokenClassification
from torch import nn

TEMPERATURE = 2.0  # of Li and Hoiem


@dataclass(frozen=True)
class EarlierAnswers:
    """The earlier model, in memory beside the one that is trained, on its device."""

    network: nn.Module  # of a kind of task that `earlier.KINDS` has
    strength: float
    digest: str  # of the file with its weights

    def losses(self, task: Task, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return for each term of a batch how far its answer is from the earlier one, times the strength, fp32; of tags
        for each token, as their losses are.

        output: of the model that is trained; its first outputs are those of the earlier one.
        """
        answers = task.token_logits if isinstance(task, TokenClassification) else task.outputs
        with torch.no_grad():
            before = answers(self.network(**task.inputs(batch)), batch)
        found = self.strength * divergence(task, answers(output, batch)[:, : before.shape[1]], before)
        return found * task.is_term(batch) if isinstance(task, TokenClassification) else found


def divergence(task: Task, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return how far answers are from earlier ones, [terms]. now, before: logits, [terms, W]. **Pure.**

    Of classes the divergence of Kullback and Leibler, of several labels its mean over them, of numbers the squared
    difference.
    """
    if task.kind == "regression":
        return (now - before).square().mean(dim=1)
    if task.has_several_labels:  # yes and no are two classes of each
        return _of_classes(*(torch.stack([each, torch.zeros_like(each)], dim=2) for each in (now, before))).mean(dim=1)
    return _of_classes(now, before)


def _of_classes(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    logs, wanted = ((each / TEMPERATURE).log_softmax(dim=-1) for each in (now, before))
    return TEMPERATURE**2 * F.kl_div(logs, wanted, reduction="none", log_target=True).sum(dim=-1)


def read(
    config: TrainConfig, device: torch.device, state: RunState | None, report: Callable[[str], None]
) -> EarlierAnswers | None:
    """Return what ``--keep_answers`` asks for, None for nothing. state: to go on from.

    Raises UsageError if the earlier run's files are not those that the run started with.
    """
    if not config.keep_answers:
        return None
    digest = keep_close.start_digest(config, state)
    network, _, _ = model.load_trained(str(config.init_from))
    report(
        f"keep_answers: {config.keep_answers:g} times how far answers are from those of {config.init_from} is "
        "minimised, too; each step computes that model as well"
    )
    return EarlierAnswers(network.to(device).eval().requires_grad_(False), config.keep_answers, digest)
