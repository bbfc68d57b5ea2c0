"""AdamW of the word embeddings by rows: those that have ever had a gradient, with the bits of the whole matrix.

A row whose moments are zero gets 0 / (0 + epsilon), which changes nothing; it only decays. A model of a hundred
languages has 250,000 rows, and the texts of one language reach some thousand of them. They are gathered, updated by
the same kernel and put back, in parts that stay in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

#: Of a matrix's rows, above which all of them are updated as they lie: to gather a row and put it back takes six times
#: as long as its update.
LARGEST_SHARE = 1 / 8
PART = 1 << 17  # numbers of an array that are gathered together: half a megabyte


class RowUpdate:
    """What an optimizer leaves to do for the word embeddings."""

    def __init__(self, optimizer: torch.optim.Optimizer, words: nn.Parameter | None) -> None:
        """words: the word embeddings, if any are trained. With another optimizer than AdamW nothing is done here."""
        self.optimizer = optimizer
        self.words = words if type(optimizer) is torch.optim.AdamW else None
        self.reached: torch.Tensor | None = None  # bool [V]: rows whose moments may not be zero; None: not known yet

    @contextmanager
    def after_a_step(self, filled: torch.Tensor | None) -> Iterator[None]:
        """Let a step of the optimizer, made within, leave out the word embeddings, and update their rows after it.

        filled: int64 [R], the rows whose gradient may not be zero; None: all, and the optimizer updates them itself, as
        it does where too many rows were reached. Which of the two it is changes no bit.
        """
        rows = self._rows(filled)
        if self.words is None or rows is None:
            yield
            return
        gradient, self.words.grad = self.words.grad, None
        yield
        self.words.grad = gradient
        self._update(self.words, rows)

    def _rows(self, filled: torch.Tensor | None) -> torch.Tensor | None:
        """Return the rows to update, int64 [R], None for all. The first step makes the moments, and is one of all."""
        state: Any = None if self.words is None else self.optimizer.state.get(self.words)
        if filled is None or not state:
            self.reached = None
            return None
        if self.reached is None:
            self.reached = state["exp_avg"].any(dim=1) | state["exp_avg_sq"].any(dim=1)
        self.reached[filled] = True
        rows = self.reached.nonzero().flatten()
        return rows if len(rows) <= LARGEST_SHARE * len(self.reached) else None

    @torch.no_grad()
    def _update(self, words: nn.Parameter, rows: torch.Tensor) -> None:
        group = next(each for each in self.optimizer.param_groups if any(one is words for one in each["params"]))
        state = self.optimizer.state[words]
        arrays = (words, words.grad, state["exp_avg"], state["exp_avg_sq"])
        if group["weight_decay"]:
            words.mul_(1 - group["lr"] * group["weight_decay"])
        size = max(1, PART // words.shape[1])
        room = [words.new_empty(size, words.shape[1]) for _ in arrays]
        for part in rows.split(size):
            several = [each[: len(part)] for each in room]
            for source, target in zip(arrays, several, strict=True):
                torch.index_select(source, 0, part, out=target)
            _adamw(several, state["step"].clone(), group)
            for target, source in zip(arrays, several, strict=True):
                if target is not words.grad:
                    target.index_copy_(0, part, source)
        state["step"] += 1


def _adamw(several: list[torch.Tensor], step: torch.Tensor, group: dict[str, Any]) -> None:
    """Update rows that have decayed: several: weights, gradient and moments, each [R, width]; step: updates so far."""
    weights, gradient, first, second = ([each] for each in several)
    adamw(
        weights,
        gradient,
        first,
        second,
        [],
        [step],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"],
        maximize=False,
    )
