"""Rows of a batch one behind the other instead of padded: everything but attention works on real tokens only.

A packed batch is one row of all tokens, [1, T], whose positions start again with each of its rows. What belongs
together is written in a `Packing`, by which attention works on each row by itself (`ringtune.train.attention`). On the
CPU, rows of like length are a group: its attention is computed together, padded to its longest row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ringtune.train.tokens import IDS, TYPES
from torch import nn

MASK, POSITIONS, PACKING = "attention_mask", "position_ids", "packing"
#: On the CPU oneDNN makes a kernel for every new shape of a bf16 product, which takes up to ten times as long as the
#: product, and keeps about a thousand. Numbers of tokens that are multiples of this are few and come again.
EVEN_TOKENS = 8
#: What a group of its own costs, in attention scores x hidden size (a row of L tokens has L x L scores): the ten or so
#: operations that it starts in every layer. Measured with a hidden size of 384 on two kinds of CPU.
GROUP_COST = 960_000


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of a packed batch whose attention is computed together. b rows, padded to L tokens."""

    start: int  # its first token among the T
    stop: int
    num_rows: int  # b
    longest: int  # L
    places: torch.Tensor | None  # int64 [b * L]: the token, from `start` on, at each place; None: all have L tokens
    is_real: torch.Tensor | None  # bool [b, 1, 1, L]: whether a token, not padding, is at the place
    tokens: torch.Tensor | None  # int64 [stop - start]: the place of each token

    def seen(self, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Return which keys a query sees, bool for [b, heads, L, L]; None: all. window: only those nearer than that."""
        if window is None or self.longest <= window:
            return self.is_real
        places = torch.arange(self.longest, device=device)
        is_near = (places[:, None] - places).abs() < window  # [L, L]
        return is_near if self.is_real is None else self.is_real & is_near

    def padded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the group's part of [T, heads, D], [b, heads, L, D]; padding is a copy of a token."""
        mine = tokens[self.start : self.stop]
        return self.by_head(mine if self.places is None else mine.index_select(0, self.places))

    def by_head(self, placed: torch.Tensor) -> torch.Tensor:
        """Return [b * L, heads, D], padding included, as [b, heads, L, D]."""
        return placed.unflatten(0, (self.num_rows, self.longest)).transpose(1, 2)

    def by_token(self, padded: torch.Tensor) -> torch.Tensor:
        """Return [b, heads, L, D] without padding, [tokens of the group, heads, D]."""
        flat = padded.transpose(1, 2).flatten(0, 1)
        return flat if self.tokens is None else flat.index_select(0, self.tokens)


@dataclass(frozen=True)
class Packing:
    """Where the rows of a packed batch are."""

    first: torch.Tensor  # int64 [B]: where each row's first token is among the T
    bounds: torch.Tensor  # int32 [B + 1]: the same, and the end
    longest: int  # tokens of the longest row
    num_tokens: int  # T without those added to even it out
    groups: tuple[Group, ...]  # none where a kernel takes rows of any length

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Packing:
        """Return it with all its tensors moved."""

        def moved_too(each: torch.Tensor | None) -> torch.Tensor | None:
            return None if each is None else move(each)

        groups = tuple(
            replace(
                each,
                places=moved_too(each.places),
                is_real=moved_too(each.is_real),
                tokens=moved_too(each.tokens),
            )
            for each in self.groups
        )
        return replace(self, first=move(self.first), bounds=move(self.bounds), groups=groups)


#: Of the batch that this thread computes; None for a padded one. Threads of a prediction share the model, so that it
#: cannot be kept there.
current: ContextVar[Packing | None] = ContextVar("packing", default=None)


def packing_of(lengths: np.ndarray, group_cost: float | None) -> Packing:
    """Return where rows of these lengths are. **Pure.**

    lengths: int [B], tokens of each row, at least one. group_cost: as for `group_rows`; None: no groups are needed.
    """
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    spans = [] if group_cost is None else group_rows(lengths, group_cost)
    return Packing(
        first=torch.from_numpy(bounds[:-1].copy()),
        bounds=torch.from_numpy(bounds.astype(np.int32)),
        longest=int(lengths.max(initial=0)),
        num_tokens=int(bounds[-1]),
        groups=tuple(_group(bounds[start : stop + 1]) for start, stop in spans),
    )


def _group(bounds: np.ndarray) -> Group:
    """Return the group of rows that lie between these bounds."""
    lengths = np.diff(bounds)
    longest = int(lengths.max())
    shape = {"start": int(bounds[0]), "stop": int(bounds[-1]), "num_rows": len(lengths), "longest": longest}
    if (lengths == longest).all():
        return Group(**shape, places=None, is_real=None, tokens=None)
    columns = np.arange(longest)
    is_real = columns < lengths[:, None]
    # A place without a token repeats the row's last one: it is masked as a key, and nobody reads it as a query.
    places = (bounds[:-1] - bounds[0])[:, None] + np.minimum(columns, lengths[:, None] - 1)
    return Group(
        **shape,
        places=torch.from_numpy(places.reshape(-1)),
        is_real=torch.from_numpy(is_real[:, None, None, :]),
        tokens=torch.from_numpy(np.flatnonzero(is_real)),
    )


def group_rows(lengths: np.ndarray, group_cost: float) -> list[tuple[int, int]]:
    """Return the neighbouring rows, as (start, stop), whose attention is cheapest computed together. **Pure.**

    lengths: int [B]. A group of b rows costs b x L x L scores, L its longest row, and ``group_cost``. Runs of rows of
    one length are never parted. With the cheapest split of the first runs known, that of one more is found by trying
    each start of the last group (dynamic programming over R runs, R x R additions).
    """
    ends = np.concatenate([np.flatnonzero(np.diff(lengths)) + 1, [len(lengths)]]) if len(lengths) else np.empty(0, int)
    starts = np.concatenate([[0], ends[:-1]])
    cheapest, cuts = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, dtype=np.int64)
    for stop in range(1, len(ends) + 1):
        # The longest row of the runs first..stop, for each first: the largest from the back.
        longest = np.maximum.accumulate(lengths[starts[:stop]][::-1])[::-1].astype(np.float64)
        costs = cheapest[:stop] + (ends[stop - 1] - starts[:stop]) * longest**2 + group_cost
        cuts[stop] = np.argmin(costs)
        cheapest[stop] = costs[cuts[stop]]
    groups = []
    stop = len(ends)
    while stop > 0:
        groups.append((int(starts[cuts[stop]]), int(ends[stop - 1])))
        stop = int(cuts[stop])
    return groups[::-1]


@dataclass(frozen=True)
class Packer:
    """Packs the batches of a model."""

    hidden_size: int  # of the model
    padding_token: int | None  # of one that counts its positions from it, as RoBERTa; None: they start at 0
    takes_types: bool
    grouped: bool = True  # whether attention needs groups
    multiple: int = 1  # that numbers of tokens are made: the last token is repeated, outside of all rows

    @classmethod
    def of(cls, model: nn.Module, *, grouped: bool = True, multiple: int = 1) -> Packer:
        """Return the packer of a model whose rows can be packed."""
        config: Any = model.config
        body: Any = model.base_model
        table = getattr(body.embeddings, "position_embeddings", None)
        table = getattr(table, "base_layer", table)  # of an adapter's layer
        takes_types = TYPES in inspect.signature(body.forward).parameters
        return cls(
            hidden_size=int(config.hidden_size),
            padding_token=getattr(table, "padding_idx", None),
            takes_types=takes_types and getattr(config, "type_vocab_size", 0) > 0,
            grouped=grouped,
            multiple=multiple,
        )

    def costs(self, lengths: np.ndarray) -> np.ndarray:
        """Return what rows cost to compute, int64 [B], as multiples of each other. lengths: int [B], their tokens.

        A layer of a BERT takes 24 H^2 multiplications and additions for a token, H its hidden size, and 4 H L for its
        attention to the L tokens of its row (Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on
        GPU Clusters Using Megatron-LM", appendix).
        """
        tokens = lengths.astype(np.int64)
        return tokens * (6 * self.hidden_size + tokens)

    def pack(self, batch: Mapping[str, Any], of_rows: Collection[str] = ()) -> dict[str, Any]:
        """Return a padded batch of the host as a packed one, with its `Packing`.

        batch: ``attention_mask`` [B, T], 1 for real tokens, other token columns [B, T], and what there is for each row.
        of_rows: names of the latter that might be taken for token columns by their shape: labels [B, W] where W is T.
        """
        mask = batch[MASK].bool()
        columns = {
            name: each for name, each in batch.items() if name not in (MASK, *of_rows) and each.shape[:2] == mask.shape
        }
        columns[POSITIONS] = self._positions(batch[IDS], mask)
        if self.takes_types and TYPES not in columns:
            columns[TYPES] = torch.zeros_like(batch[IDS])
        packed = {name: self._evened(each[mask])[None] for name, each in columns.items()}
        others = {name: each for name, each in batch.items() if name not in columns and name != MASK}
        lengths = mask.sum(dim=1).numpy()
        cost = GROUP_COST / self.hidden_size if self.grouped else None
        return {**others, **packed, PACKING: packing_of(lengths, cost)}

    def computed(self, num_tokens: int) -> int:
        """Return how many tokens are computed for a packed batch of these. **Pure.**"""
        return -(-num_tokens // self.multiple) * self.multiple

    def _evened(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return a column of tokens, [T], with its last one repeated."""
        return torch.cat([tokens, tokens[-1:].expand(self.computed(len(tokens)) - len(tokens))])

    def _positions(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return each token's position in its row, int64 [B, T].

        Models of RoBERTa's family count those tokens that are not the padding token, from the number behind it
        (transformers' ``create_position_ids_from_input_ids``).
        """
        if self.padding_token is None:
            return mask.cumsum(dim=1) - 1
        counts = (ids != self.padding_token) & mask
        return counts.cumsum(dim=1) * counts + self.padding_token
