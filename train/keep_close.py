"""Hold parameters close to those of an earlier run: L2-SP.

Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", equation 2: alpha / 2 times
the squared distance from the start is added to the loss. Its gradient, alpha times the distance, is added here to the
reduced gradient, before clipping: once for each step, whatever the shards, the ranks and the scale of an fp16 loss. New
rows of a head have no start and are free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ringtune.train import publish
from ringtune.train.checkpoint import MODEL_FILE, RunState
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.trainable import trainable
from safetensors import safe_open
from torch import nn


@dataclass(frozen=True)
class StartWeights:
    """The weights to stay close to, in memory once, on the device."""

    pairs: tuple[tuple[nn.Parameter, torch.Tensor], ...]  # a parameter, and its start: of a grown head fewer rows
    strength: float  # alpha
    digest: str  # of the file with them

    def pull(self) -> None:
        """Add the penalty's gradient to that of each parameter."""
        for parameter, start in self.pairs:
            if parameter.grad is None:
                continue
            # A new tensor: the gradient of the word embeddings is a buffer, of which only filled rows are cleared.
            pulled = parameter.grad.clone()
            rows = slice(0, len(start)) if start.ndim else ...
            pulled[rows] += self.strength * (parameter.detach()[rows] - start)
            parameter.grad = pulled

    def describe(self, run: str) -> str:
        """Return what is done, in one line."""
        total = sum(start.numel() for _, start in self.pairs)
        return (
            f"keep_close: {self.strength:g} / 2 times the squared distance of {total} numbers from {run} is minimised"
        )


def read(
    config: TrainConfig, network: nn.Module, state: RunState | None, report: Callable[[str], None]
) -> StartWeights | None:
    """Return what ``--keep_close`` asks for, None for nothing. network: on its device. state: to go on from.

    Read from the earlier run's files at each start, so that a checkpoint holds nothing of it. Raises UsageError if they
    are not those that the run started with.
    """
    if not config.keep_close:
        return None
    digest = start_digest(config, state)
    parameters = trainable(network)
    with safe_open(_path(config), framework="pt") as file:
        names = set(file.keys())
        found = {name: file.get_tensor(name) for name in parameters if name in names}
    pairs = tuple((parameters[name], _on_device(each, parameters[name])) for name, each in found.items())
    start = StartWeights(pairs, config.keep_close, digest)
    report(start.describe(str(config.init_from)))
    return start


def start_digest(config: TrainConfig, state: RunState | None) -> str:
    """Return the digest of the weights of ``--init_from``. state: of a run to go on with.

    Raises UsageError if they are not those that it started with.
    """
    found = publish.file_sha256(_path(config))
    if state is not None and state.start_digest != found:
        raise UsageError(
            f"--init_from {config.init_from}",
            "its weights are not what they were when the run started, which stays close to them",
            legal="the same files, byte for byte",
            todo="put them back, or start a new run with another --output_dir",
        )
    return found


def _path(config: TrainConfig) -> Path:
    return Path(str(config.init_from)).expanduser() / MODEL_FILE


def _on_device(start: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    return start.to(parameter.device, parameter.dtype)
