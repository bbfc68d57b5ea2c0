"""Gradient checkpointing: of each layer only its input is kept, and backward computes the layer again.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". The dropout of the second computation is that of the
first, since torch restores the generator's state; so are the packed rows, which are put back here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ringtune.train.contract import UsageError
from ringtune.train.packing import Packing, current
from torch import nn


def recompute_layers(model: nn.Module) -> str:
    """Let backward compute a model's layers again; return a line about it. Raises UsageError for a model of a family
    whose layers transformers does not run twice."""
    settings: Any = model.config
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UsageError(
            "--gradient_checkpointing",
            f"models of type {settings.model_type} cannot compute their layers again",
            legal="a model whose layers transformers can",
            todo="leave it out, and lower --per_device_train_batch_size",
        )
    network: Any = model
    # The name since transformers 5.20, and the one before.
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": _contexts})
    return "each layer is computed again in backward, which keeps less in memory (--gradient_checkpointing)"


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the surroundings of a layer's first computation and of its second. Called at the first."""
    return nullcontext(), _packed(current.get())


@contextmanager
def _packed(packing: Packing | None) -> Iterator[None]:
    before = current.set(packing)
    try:
        yield
    finally:
        current.reset(before)
