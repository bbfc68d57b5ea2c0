"""Attention masks that the host decides on, so that no model reads one back from a GPU.

transformers leaves a mask out where no token is masked, and to know that, its models read the mask on the host: with a
GPU, a wait in every forward. The host that made the batch knows it already. It leaves out the mask of a batch without
padding, and gives any other one in the form that transformers makes of it, bool [B, 1, T, T], and takes as it is
(``transformers.masking_utils.create_bidirectional_mask``).
"""

from __future__ import annotations

import torch
from torch import nn

MASK = "attention_mask"
#: Model types whose tokens all see each other, and whose mask transformers makes by that function.
BIDIRECTIONAL = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert")


def takes_known_mask(model: nn.Module) -> bool:
    """Return whether a model takes the masks made here."""
    config = getattr(model, "config", None)
    return getattr(config, "model_type", "") in BIDIRECTIONAL and getattr(config, "_attn_implementation", "") == "sdpa"


def known_mask(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch of the host without its mask if nothing is masked, or with it as bool [B, 1, 1, T].

    batch: with ``attention_mask`` [B, T], 1 for real tokens.
    """
    mask = batch[MASK].bool()
    others = {name: each for name, each in batch.items() if name != MASK}
    return others if bool(mask.all()) else {**others, MASK: mask[:, None, None, :]}


def for_every_token(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch of the device with the mask of `known_mask` seen as [B, 1, T, T]; it takes no memory."""
    mask = batch.get(MASK)
    if mask is None or mask.ndim != 4:
        return batch
    return {**batch, MASK: mask.expand(-1, 1, mask.shape[-1], -1)}
