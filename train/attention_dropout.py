"""Attention of groups of packed rows with dropout, forward and backward, as few operations on the CPU as it takes.

PyTorch has no kernel for attention with dropout on the CPU: `scaled_dot_product_attention` is then put together from
some thirty operations and their copies. A group of short rows is so small that starting them takes longer than
computing. It is computed in fp32, as there: oneDNN makes a kernel for every new shape of a bf16 product, and groups
have many. A group of long rows is computed in the format of its tokens, since there products and copies take the time.
"""

from __future__ import annotations

from typing import Any

import torch
from ringtune.train.dropout import draw_kept, scale_of
from ringtune.train.packing import Group, Packing

#: Tokens of a group's longest row from which it is computed in bf16, if its tokens are. Measured: a product of 128
#: tokens takes 0.08 ms in bf16 and 0.2 in fp32, and 2 once for its kernel.
LONG = 128


def attend_with_dropout(
    packing: Packing,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rate: float,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Return the attention of each packed row, [T, heads, D]. window: as for `ringtune.train.attention.attend`.

    query, key, value: [T, heads, D].
    """
    return _Attention.apply(query, key, value, packing, rate, scaling, window)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Scores, softmax, dropout and the mean of the values, a group at a time."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def forward(  # type: ignore[override]
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        packing: Packing,
        rate: float,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        found, saved = [], []
        for group in packing.groups:
            q, k, v = (_working(group, group.padded(each)) for each in (query, key, value))
            scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scaling)
            seen = group.seen(window, q.device)
            if seen is not None:
                scores.unflatten(0, (group.num_rows, -1)).masked_fill_(~seen, float("-inf"))
            weights = torch.softmax(scores, dim=-1)
            kept = draw_kept(weights.shape, rate)
            dropped = weights * kept
            found.append(_by_token(group, torch.bmm(dropped, v).mul_(scale_of(rate)), query.dtype))
            saved += [q, k, v, weights, kept, dropped]
        ctx.save_for_backward(*saved)
        ctx.packing, ctx.rate, ctx.scaling = packing, rate, scaling
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        several: list[tuple[torch.Tensor, ...]] = []
        for number, group in enumerate(ctx.packing.groups):
            q, k, v, weights, kept, dropped = ctx.saved_tensors[6 * number : 6 * number + 6]
            of_output = _working(group, _with_zeros(group, gradient)) * scale_of(ctx.rate)
            of_weights = torch.bmm(of_output, v.transpose(1, 2)).mul_(kept)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            none = q.new_empty(())
            of_group = (
                torch.baddbmm(none, of_scores, k, beta=0, alpha=ctx.scaling),
                torch.baddbmm(none, of_scores.transpose(1, 2), q, beta=0, alpha=ctx.scaling),
                torch.bmm(dropped.transpose(1, 2), of_output),
            )
            several.append(tuple(_by_token(group, each, gradient.dtype) for each in of_group))
        return (*(torch.cat(each) for each in zip(*several, strict=True)), None, None, None, None)


def _working(group: Group, padded: torch.Tensor) -> torch.Tensor:
    """Return [b, heads, L, D] as [b * heads, L, D]; of short rows in fp32 or wider."""
    is_long = group.longest >= LONG
    dtype = padded.dtype if is_long else torch.promote_types(padded.dtype, torch.float32)
    return padded.to(dtype).flatten(0, 1)


def _with_zeros(group: Group, tokens: torch.Tensor) -> torch.Tensor:
    """Return a group's part of [T, heads, D], [b, heads, L, D]; padding is zero."""
    mine = tokens[group.start : group.stop]
    if group.tokens is not None:
        num_places = group.num_rows * group.longest
        mine = mine.new_zeros(num_places, *mine.shape[1:]).index_copy_(0, group.tokens, mine)
    return group.by_head(mine)


def _by_token(group: Group, heads: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return [b * heads, L, D] without padding, [tokens of the group, heads, D]."""
    return group.by_token(heads.to(dtype).unflatten(0, (group.num_rows, -1)))
