"""Random weights for the last layers of a pretrained model.

What the last layers learnt in pretraining may serve its task alone; with few rows, fine-tuning is steadier where they
start from random weights (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning").
"""

from __future__ import annotations

from typing import Any

import torch
from ringtune.train.contract import UsageError
from ringtune.train.trainable import layer_of
from torch import nn


def reinitialise(model: nn.Module, num_layers: int, seed: int) -> str:
    """Draw the last layers of a model's body, and its pooler, as transformers draws new ones; return a line about it.

    Raises UsageError for more layers than there are.
    """
    network: Any = model
    body: Any = network.base_model
    layers = {name: layer for name, _ in body.named_modules() if (layer := layer_of(f".{name}.")) is not None}
    numbers = sorted(set(layers.values()))
    if num_layers > len(numbers):
        legal = f"1 to {len(numbers)}" if numbers else "a model whose layers have weights of their own"
        raise UsageError("--reinit_layers", f"{num_layers} is more than the model has", legal=legal)
    last = numbers[len(numbers) - num_layers :]
    drawn = [body.get_submodule(name) for name, layer in layers.items() if layer in last]
    pooler = [each for name, each in body.named_modules() if name.split(".")[0] == "pooler"]
    torch.manual_seed(seed)
    for module in (*drawn, *pooler):
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers leaves loaded ones alone
        network._init_weights(module)
    which = f"layers {last[0]} to {last[-1]}" if len(last) > 1 else f"layer {last[0]}"
    return f"{which}{' and the pooler' if pooler else ''} of {len(numbers)} layers start from random weights"
