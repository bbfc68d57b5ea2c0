"""Attention of packed rows, each by itself, through transformers' attention interface.

A model that takes it is given packed batches, or padded ones that it packs itself: see `take_packed_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ringtune.train.attention_dropout import attend_with_dropout
from ringtune.train.dropout import draw_in_fours
from ringtune.train.first_token import has_cut
from ringtune.train.packing import EVEN_TOKENS, MASK, PACKING, POSITIONS, Group, Packer, Packing, current
from torch import nn

NAME = "ringtune"  # of this attention among those of transformers
#: Model types whose tokens work by themselves but in attention, which is that of transformers' interface.
PACKED_TYPES = (
    "albert",
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "roberta",
    "xlm-roberta",
)


def can_pack(model: nn.Module, *, reads_first_token: bool = True) -> bool:
    """Return whether a packed row gives what the row alone gives: tested for each of `PACKED_TYPES`.

    reads_first_token: whether the model's head reads each row's first token, and not every token by itself.
    """
    config: Any = model.config
    return (
        config.model_type in PACKED_TYPES
        and config._attn_implementation == "sdpa"
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "chunk_size_feed_forward", 0)  # transformers would cut the packed row into slices
        and (
            not reads_first_token
            or (getattr(config, "classifier_pooling", "cls") == "cls" and has_cut(model))  # and no mean over padding
        )
    )


def take_packed_rows(model: nn.Module) -> None:
    """Let a model take packed batches; a padded one that it is given is packed first.

    A head that reads a row's first token must be given those of the rows, as `ringtune.train.first_token` does.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    draw_in_fours(model)
    model.register_forward_pre_hook(_begin, with_kwargs=True)
    model.register_forward_hook(_end, always_call=True)


def packer_of(model: nn.Module, device: torch.device, autocast: torch.dtype | None) -> Packer | None:
    """Return the packer of a model's batches; None for one whose batches stay padded.

    On a GPU, in a format that it has a kernel for, attention takes rows of any length without groups.
    """
    if getattr(getattr(model, "config", None), "_attn_implementation", "") != NAME:
        return None
    config: Any = model.config
    fits = config.hidden_size // config.num_attention_heads % 8 == 0
    takes_any = device.type == "cuda" and autocast in (torch.float16, torch.bfloat16) and fits
    is_jitted = device.type == "cpu" and autocast is not None
    return Packer.of(model, grouped=not takes_any, multiple=EVEN_TOKENS if is_jitted else 1)


def _no_mask(**_facts: Any) -> None:
    """Return no mask: the packing says what belongs together."""


def _begin(model: nn.Module, words: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Take the packing out of a model's inputs."""
    packed = dict(inputs) if PACKING in inputs else _packed(model, _with_mask(inputs))
    current.set(packed.pop(PACKING))
    return words, packed


def _packed(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a padded batch packed; of one of choices, [N, 1, T], each as a row, [1, 1, tokens]."""
    if inputs[MASK].ndim == 2:
        return Packer.of(model).pack(inputs)
    packed = Packer.of(model).pack({name: each.flatten(0, 1) for name, each in inputs.items()})
    return {name: each if name in (PACKING, POSITIONS) else each[:, None] for name, each in packed.items()}


def _with_mask(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    return inputs if inputs.get(MASK) is not None else {**inputs, MASK: torch.ones_like(inputs["input_ids"])}


def _end(_model: nn.Module, _words: tuple[Any, ...], _output: Any) -> None:
    current.set(None)


def attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention of each packed row, [1, T, heads, D], and no weights, as transformers' interface wants it.

    query, key, value: [1, heads, T, D]. sliding_window: a token sees those nearer than that; None: all of its row.
    """
    packing = current.get()
    assert packing is not None
    several = [each[0].transpose(0, 1)[: packing.num_tokens] for each in (query, key, value)]  # [T, heads, D]
    if packing.groups and dropout and query.device.type == "cpu":
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        found = attend_with_dropout(packing, several[0], several[1], several[2], dropout, scale, sliding_window)
    elif packing.groups:
        found = torch.cat([_of_group(each, several, dropout, scaling, sliding_window) for each in packing.groups])
    else:
        found = _of_any_lengths(packing, several, dropout, scaling, sliding_window)
    num_added = query.shape[2] - packing.num_tokens
    return (F.pad(found, (0, 0, 0, 0, 0, num_added)) if num_added else found)[None], None


def _of_group(
    group: Group,
    several: list[torch.Tensor],
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Return the attention of a group of rows, [tokens of the group, heads, D]."""
    query, key, value = map(group.padded, several)
    mask = group.seen(sliding_window, query.device)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return group.by_token(found)


def _of_any_lengths(
    packing: Packing, several: list[torch.Tensor], dropout: float, scaling: float | None, sliding_window: int | None
) -> torch.Tensor:
    """Return the attention of all rows by the flash kernel, which takes rows of any length, [T, heads, D].

    It is called below ``torch.nn.attention.varlen``, which leaves out dropout.
    """
    window = (None, None) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
    return torch.ops.aten._flash_attention_forward(
        *several,
        packing.bounds,
        packing.bounds,
        packing.longest,
        packing.longest,
        dropout,
        False,  # not causal
        False,  # no debug mask
        scale=scaling,
        window_size_left=window[0],
        window_size_right=window[1],
    )[0]
