"""What a sequence classifier computes in vain: its head reads the first token of the last layer, which computes all.

Behind its attention, a layer of the BERT family works on each token by itself. In the last one, the other tokens can be
left out there: nine of its twelve units of matrix products, an eighth of a BERT of six layers; eight in DistilBERT. Of
packed rows, [1, T], the first tokens come out as [B, 1], so that the head finds each row's where it looks for it.
"""

from __future__ import annotations

from typing import Any

import torch
from ringtune.train.packing import current
from torch import nn

# Where the layers are, and what is the first in a layer to work on each token by itself. Families whose sequence
# classifiers read the first token alone.
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
#: Families whose last layer cannot be cut so: ALBERT's layers are one layer, used again and again; ModernBERT's adds up
#: outside of its parts. They are cut behind it, where what is named here gives its output, which is for packed rows.
BEHIND_LAYERS = {"albert": "encoder", "modernbert": "final_norm"}


def leave_out_other_tokens(model: nn.Module) -> nn.Module:
    """Let a sequence classifier's last layer compute what its head reads and no more, and return the model.

    The logits are the same up to float noise: a kernel may sum in another order for fewer rows. Dropout behind the last
    attention draws for the first tokens alone. A model of an unknown family is left as it is.
    """
    settings: Any = model.config
    body: Any = model.base_model
    in_slices = getattr(settings, "chunk_size_feed_forward", 0)  # transformers refuses to cut one token into slices
    if not _reads_it(model):
        return model
    if settings.model_type in FAMILIES and not in_slices:
        layers, first = FAMILIES[settings.model_type]
        for last_layer in body.get_submodule(layers)[-1:]:
            last_layer.get_submodule(first).register_forward_pre_hook(_first_tokens_in)
    if settings.model_type in BEHIND_LAYERS:
        body.get_submodule(BEHIND_LAYERS[settings.model_type]).register_forward_hook(_first_tokens_out)
    return model


def has_cut(model: nn.Module) -> bool:
    """Return whether packed rows of a model come out by their first tokens: not of one without layers to cut."""
    settings: Any = model.config
    if not _reads_it(model):
        return False
    if settings.model_type in BEHIND_LAYERS:
        return True
    body: Any = model.base_model
    return settings.model_type in FAMILIES and len(body.get_submodule(FAMILIES[settings.model_type][0])) > 0


def _reads_it(model: nn.Module) -> bool:
    """Return whether a head reads the first token: one of ELECTRA for choices may be set to read others."""
    return getattr(getattr(model, "sequence_summary", None), "summary_type", "first") == "first"


def _first_tokens_in(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cut inputs to each row's first token."""
    return tuple(map(_first_tokens, inputs))


def _first_tokens_out(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
    """Cut an output to each row's first token, if rows are packed."""
    if current.get() is None:
        return output
    if isinstance(output, torch.Tensor):
        return _first_tokens(output)
    output.last_hidden_state = _first_tokens(output.last_hidden_state)
    return output


def _first_tokens(hidden: torch.Tensor) -> torch.Tensor:
    """Return [B, 1, H] of the tokens [B, T, H] of padded rows, or of those [1, T, H] of packed ones."""
    packing = current.get()
    return hidden[:, :1] if packing is None else hidden[0].index_select(0, packing.first)[:, None]
