"""Which parameters are trained, and how fast each of them is."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

import torch
from ringtune.train.columns import split_names
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError, nearest
from ringtune.train.task import Task
from ringtune.train.tokens import Features
from torch import nn

#: ``bert.encoder.layer.3.output.dense.weight`` is of layer 3; a model without such names shares one layer (ALBERT).
_LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in the model's order; a tied one once."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def layer_of(name: str) -> int | None:
    """Return the layer that a parameter's name says it is of, None for none. **Pure.**"""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def choose(model: nn.Module, task: Task, features: Features, config: TrainConfig) -> list[str]:
    """Freeze what is not to be trained, or cannot be; return lines about it. Raises UsageError."""
    lines = [freeze(model, split_names(config.freeze))] if config.freeze else []
    unused = freeze_unused(model, task, features)
    if unused:
        lines.append(f"{len(unused)} parameters do not reach the loss and stay as they are: {', '.join(unused)}")
    if config.layerwise_lr_decay != 1:
        lines.append(describe_rates(rates_of(model, config.layerwise_lr_decay)))
    return lines


def freeze(model: nn.Module, patterns: Sequence[str]) -> str:
    """Freeze the parameters whose names match a pattern of the shell; return a line about them.

    Raises UsageError for a pattern that matches nothing, and if nothing would be left.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                "--freeze",
                f"no parameter's name matches {pattern!r}",
                legal=f"{len(names)} names such as {names[0]}, {names[-1]}",
                todo=nearest(pattern, names),
            )
    frozen = [each for each in names if any(fnmatch.fnmatchcase(each, pattern) for pattern in patterns)]
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    for name, each in model.named_parameters():
        if name in frozen:
            each.requires_grad_(False)
    if not trainable(model):
        raise UsageError("--freeze", "every parameter matches", legal="patterns that leave something to train")
    left = sum(sizes[name] for name in trainable(model)) / sum(sizes.values())
    return f"frozen: {len(frozen)} of {len(names)} parameters; {left:.1%} of all numbers are trained"


def freeze_unused(model: nn.Module, task: Task, features: Features) -> list[str]:
    """Freeze the parameters that the loss does not reach and return their names.

    One rank alone leaves their gradient unset and AdamW skips them; with several ranks the reduction would set zeros
    and AdamW would decay them, so that N ranks would differ from one.
    """
    with torch.enable_grad():
        batch = task.collate(features, [0], seed=0)
        task.outputs(model(**task.inputs(batch)), batch).sum().backward()
    unused = [name for name, each in trainable(model).items() if each.grad is None]
    for name, each in model.named_parameters():
        each.grad = None
        if name in unused:
            each.requires_grad_(False)
    return unused


def rates_of(model: nn.Module, decay: float) -> dict[str, float]:
    """Return `layer_rates` of the trained parameters."""
    return layer_rates(list(trainable(model)), str(getattr(model, "base_model_prefix", "")), decay)


def layer_rates(names: Sequence[str], body: str, decay: float) -> dict[str, float]:
    """Return what the learning rate of each parameter is multiplied by: ``decay`` once for every layer above its own.

    The head has 1, the last layer ``decay``, the embeddings the least (Sun et al. 2019, "How to Fine-Tune BERT for Text
    Classification?"; Clark et al. 2020, "ELECTRA"). What of the body is of no layer, such as a pooler or a last norm,
    is above all layers; what is named embeddings is below them. names: of parameters, with the prefix ``body`` where
    they are not the head's. **Pure.**
    """
    layers = {name: layer for name in names if (layer := layer_of(name)) is not None}
    num_layers = max(layers.values(), default=-1) + 1

    def height(name: str) -> int:
        """0: embeddings; 1 to num_layers: layers; one more: above them."""
        if name in layers:
            return layers[name] + 1
        is_first = name.startswith(f"{body}.") and "embedding" in name
        return 0 if is_first else num_layers + 1

    return {name: decay ** (num_layers + 1 - height(name)) for name in names}


def describe_rates(rates: Mapping[str, float]) -> str:
    """Return a line about parameters' shares of the learning rate. **Pure.**"""
    distinct = sorted(set(rates.values()))
    return f"learning rates by layer: from {distinct[0]:.3g} of the whole for the embeddings to {distinct[-1]:.3g}"
