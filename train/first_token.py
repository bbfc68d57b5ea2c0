"""What a classifier computes in vain: its head reads the first token of the last layer, the layer computes them all.

Behind its attention, a layer of the BERT family works on each token by itself. In the last one, the other tokens can be
left out there: nine of its twelve units of matrix products, an eighth of a BERT of six layers; eight in DistilBERT.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Where the layers are, and what is the first in a layer to work on each token by itself. Families whose sequence
# classifiers read the first token alone. ALBERT's do so too, but its layers are one layer, used again and again.
BERT, DISTILBERT = ("encoder.layer", "attention.output"), ("transformer.layer", "sa_layer_norm")
FAMILIES = {
    "bert": BERT,
    "camembert": BERT,
    "deberta-v2": BERT,
    "distilbert": DISTILBERT,
    "electra": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
}


def leave_out_other_tokens(model: nn.Module) -> nn.Module:
    """Let a sequence classifier's last layer compute what its head reads and no more, and return the model.

    In inference mode only; training computes as before. The logits are the same up to float noise: a kernel may sum in
    another order for fewer rows. A model of an unknown family is left as it is.
    """
    settings: Any = model.config
    in_slices = getattr(settings, "chunk_size_feed_forward", 0)  # transformers refuses to cut one token into slices
    if settings.model_type in FAMILIES and not in_slices:
        layers, first = FAMILIES[settings.model_type]
        encoder: Any = model.base_model
        for last_layer in encoder.get_submodule(layers)[-1:]:  # none in a model without layers
            last_layer.get_submodule(first).register_forward_pre_hook(_first_token_of_each)
    return model


def _first_token_of_each(
    _module: nn.Module, hidden_states: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...] | None:
    """Cut inputs [B, T, H] to [B, 1, H]; None leaves them as they are."""
    return tuple(each[:, :1] for each in hidden_states) if torch.is_inference_mode_enabled() else None
