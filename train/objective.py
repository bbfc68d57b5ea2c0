"""What a step minimises: the losses of its terms, shaped and weighted, over the sum of all weights of the step.

The sum is of the whole global batch, so that uneven shards, ranks and gradient accumulation change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ringtune.train.columns import shown_name, shown_names
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError, nearest
from ringtune.train.task import Task
from ringtune.train.task.sequence import LABELS, WEIGHTS
from ringtune.train.tokens import Features

AUTO = "auto"
SMALLEST = 1e-12
_LEAST, _MOST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Objective:
    """How the losses of terms make the loss of a step."""

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: torch.Tensor | None = None  # float32 [C], on the device; None: every term counts the same
    positive_weights: torch.Tensor | None = None  # float32 [W]: what a label counts where a row has it; the row stays 1

    def total_weight(self, features: Features, chosen: np.ndarray) -> float:
        """Return the sum of the weights of the terms of some features, the same on every rank. **Pure.**"""
        weights = features.feature_columns.get(WEIGHTS)  # of rows that do not count the same: each has one term
        if self.class_weights is None and weights is None:
            return int(features.num_terms[chosen].sum()) or 1  # rows without any term have no loss either
        each = np.ones(len(chosen)) if weights is None else weights[chosen].astype(np.float64)
        if self.class_weights is not None:
            each = each * self._on_host[features.feature_columns[LABELS][chosen]]
        return math.fsum(each)

    @cached_property
    def _on_host(self) -> np.ndarray:
        """The weights, float64 [C], read from the device once: a step must not wait for it."""
        assert self.class_weights is not None
        return self.class_weights.cpu().numpy().astype(np.float64)

    def losses(self, task: Task, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted loss of each term of a batch, fp32. output: the model's."""
        losses = task.losses(output, batch, self.label_smoothing)
        if self.focal_gamma:
            # Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4. A row's loss is -log(probability). A
            # power below 1 has no slope at 0.
            losses = (-torch.expm1(-losses)).clamp(min=SMALLEST) ** self.focal_gamma * losses
        if self.positive_weights is not None:  # the pos_weight of torch's BCEWithLogitsLoss
            losses = losses * torch.where(batch[LABELS] == 1, self.positive_weights, 1.0)
        if losses.ndim == 2:  # of each label of a row
            losses = losses.mean(dim=1)
        return self.weighted(losses, batch)

    def weighted(self, losses: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return losses, each times what its term counts. losses: of each term of a batch."""
        if self.class_weights is not None:
            losses = losses * self.class_weights[batch[LABELS]]
        return losses * batch[WEIGHTS] if WEIGHTS in batch else losses


def choose(
    config: TrainConfig,
    task: Task,
    features: Features,
    device: torch.device,
    report: Callable[[str], None],
    parts: Sequence[tuple[int, float]] = (),
) -> Objective:
    """Return the objective that the configuration asks for. features: of the training rows.

    report: takes a line about weights. parts: as `count_labels` takes them. Raises UsageError for classes that the task
    does not have.
    """
    counts = count_labels(task, features, parts)
    if task.has_several_labels:
        num_rows = sum(number * factor for number, factor in parts) if parts else features.num_features
        return _of_several_labels(config, counts, num_rows, device, report)
    for name in ("class_weights", "focal_gamma", "balanced_sampling"):
        if getattr(config, name) and not counts:
            raise UsageError(f"--{name}", f"the rows have no classes: learnt is {task.describe()}", todo="leave it out")
    weights = None
    if config.class_weights:
        by_class = balanced(counts) if config.class_weights == AUTO else parse(config.class_weights, list(counts))
        report("class weights: " + ", ".join(f"{shown_name(name)} {each:.4g}" for name, each in by_class.items()))
        weights = torch.tensor(list(by_class.values()), dtype=torch.float32, device=device)
    return Objective(config.label_smoothing_factor, config.focal_gamma, weights)


def count_labels(task: Task, features: Features, parts: Sequence[tuple[int, float]]) -> Mapping[str, float]:
    """Return how much of the loss each class has by its name: a row counts as often as an epoch draws it, times its
    weight. **Pure.**

    parts: number of features and what each counts, in the order of the features; none: all count 1.
    """
    if not parts or LABELS not in features.feature_columns:
        return task.count_labels(features)
    total: dict[str, float] = {}
    start = 0
    for number, factor in parts:
        labels = features.feature_columns[LABELS][start : start + number]
        found = task.count_labels(replace(features, feature_columns={LABELS: labels}))
        total = {name: total.get(name, 0.0) + factor * count for name, count in found.items()}
        start += number
    return total


def _of_several_labels(
    config: TrainConfig,
    counts: Mapping[str, float],
    num_rows: float,
    device: torch.device,
    report: Callable[[str], None],
) -> Objective:
    """Return the objective of rows that may have several labels each. counts, num_rows: as `count_labels` counts.

    Raises UsageError for what does not apply.
    """
    if config.balanced_sampling:
        raise UsageError("--balanced_sampling", "a row may have several labels, and is drawn once", todo="leave it out")
    if not config.class_weights:
        return Objective(config.label_smoothing_factor, config.focal_gamma)
    if config.label_smoothing_factor:
        raise UsageError(
            "--class_weights --label_smoothing_factor",
            "both are set: a label that is partly there has no weight of its own",
            legal="one of them, where rows have several labels",
        )
    if config.class_weights == AUTO:
        weights = balanced_labels(counts, num_rows)
    else:
        weights = parse(config.class_weights, list(counts))
    shown = ", ".join(f"{shown_name(name)} {each:.4g}" for name, each in weights.items())
    report(f"weights of labels where a row has them: {shown}")
    on_device = torch.tensor(list(weights.values()), dtype=torch.float32, device=device)
    return Objective(config.label_smoothing_factor, config.focal_gamma, positive_weights=on_device)


def balanced_labels(counts: Mapping[str, float], num_rows: float) -> dict[str, float]:
    """Return weights by which the rows with a label count as much as those without it. **Pure.**

    A label that all rows have, or none, has 1.
    """
    return {name: (num_rows - count) / count if 0 < count < num_rows else 1.0 for name, count in counts.items()}


def balanced(counts: Mapping[str, float]) -> dict[str, float]:
    """Return weights by which all classes count the same: rows / (classes x rows of the class). **Pure.**

    As scikit-learn's ``class_weight="balanced"``; a class without rows has 0.
    """
    total = sum(counts.values())
    return {name: total / (len(counts) * count) if count else 0.0 for name, count in counts.items()}


def parse(text: str, classes: list[str]) -> dict[str, float]:
    """Return the weights of ``1,2.5``, in the order of the classes, or of ``up=2.5,down=1``. **Pure.**

    Raises UsageError for anything else.
    """
    where, legal = "--class_weights", f"auto, or a number above 0 for each of {len(classes)} classes"
    parts = [each.strip() for each in text.split(",")]
    named = [each.rpartition("=") for each in parts]
    if all(name for name, _, _ in named):
        for name, _, _ in named:
            if name not in classes:
                wrong = f"there is no class {shown_name(name)}"
                raise UsageError(where, wrong, legal=f"of {shown_names(classes)}", todo=nearest(name, classes))
        found = {name: number for name, _, number in named}
        parts = [found[each] for each in classes if each in found]
        if len(named) != len(found):
            raise UsageError(where, f"{text} names a class twice", legal=legal)
    if len(parts) != len(classes):
        raise UsageError(where, f"{text} has {len(parts)} for {len(classes)} classes", legal=legal)
    return {name: _weight(part, where, legal) for name, part in zip(classes, parts, strict=True)}


def _weight(text: str, where: str, legal: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(where, f"{text!r} is no weight", legal=legal)
    if not _LEAST <= value <= _MOST:
        raise UsageError(where, f"{text!r} is {'infinite' if value > 1 else '0'} as float32", legal=legal)
    return value
