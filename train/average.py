"""The mean of the parameters over the last updates: it is what is evaluated, saved and left as the final model.

An exponential moving average (Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; as a
moving one in Tarvainen & Valpola 2017, "Mean teachers are better role models"). Training goes on from the parameters
themselves, which a checkpoint keeps beside the moments: its model is the average, as its scores are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from ringtune.train.contract import UsageError
from ringtune.train.trainable import trainable
from torch import nn

TRAINED = "trained"  # in a checkpoint's file of moments: a parameter as training goes on from it


class Average:
    """The averages of trained parameters; of none where nothing is averaged."""

    def __init__(self, parameters: Mapping[str, nn.Parameter] | None = None, decay: float = 0.0) -> None:
        """parameters: by name, whose values are the first averages. decay: what is left of an average by an update."""
        self.parameters = dict(parameters or {})
        self.decay = decay
        self.values = {name: each.detach().clone() for name, each in self.parameters.items()}

    @classmethod
    def of(cls, model: nn.Module, decay: float | None) -> Average:
        """Return the averages of a model's trained parameters; of none without a decay."""
        return cls() if decay is None else cls(trainable(model), decay)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the parameters after a step. step: 1-based.

        At first the decay is lower, (1 + step) / (10 + step), so that the start is soon forgotten (TensorFlow's
        ``ExponentialMovingAverage`` with ``num_updates``).
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, each in self.parameters.items():
            self.values[name].lerp_(each, 1 - decay)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Have the averages in the model, and the parameters again after that."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, each in self.parameters.items():
            trained = each.clone()
            each.copy_(self.values[name])
            self.values[name].copy_(trained)

    def finish(self, *, into_model: bool) -> None:
        """Average no more. into_model: leave the averages in the model; else there is a better one in it."""
        if into_model:
            self._swap()
        self.parameters, self.values = {}, {}

    def trained_tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters as training goes on from them, named ``<parameter>/trained``."""
        return {f"{name}/{TRAINED}": each.detach() for name, each in self.parameters.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
        """Put the parameters of `trained_tensors` back into a model that holds the averages; return the other tensors.

        Raises UsageError for those of another model, or of none.
        """
        for name, each in self.parameters.items():
            trained = tensors.get(f"{name}/{TRAINED}")
            if trained is None or trained.shape != each.shape:
                raise UsageError(where, f"it has no trained {name} beside its average", legal="a run with --ema_decay")
            each.copy_(trained)
        return {name: each for name, each in tensors.items() if not name.endswith(f"/{TRAINED}")}
