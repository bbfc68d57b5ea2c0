"""From the numbers that a model gives for each token to losses, and to the best spans of a window and of a row.

A window's numbers, W = 2 + 3 n for n spans: its loss, the score of no answer, and the scores, first characters and last
characters + 1 of its best spans, best first; -1 for the characters of spans that are not there. A span's score is the
sum of its first token's score as a start and its last one's as an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ringtune.train.packing import MASK, PACKING
from ringtune.train.task.passages import END, FIRST, LAST, NULL, PLACE, START


def width(num_spans: int) -> int:
    """Return W, the numbers of a window. **Pure.**"""
    return 2 + 3 * num_spans


def by_row(values: torch.Tensor, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of tokens by feature, [B, L], and which of them are of real tokens, bool [B, L].

    values: [B, T], or [1, T] of a packed batch.
    """
    if PACKING not in batch:
        return values, batch[MASK].bool()
    packing = batch[PACKING]
    bounds = packing.bounds.long()
    places = torch.arange(packing.longest, device=values.device)
    lengths = bounds.diff()[:, None]
    return values[0][bounds[:-1, None] + torch.minimum(places, lengths - 1)], places < lengths


def losses(output: Any, batch: Mapping[str, Any], label_smoothing: float = 0.0) -> torch.Tensor:
    """Return of each window the mean of the cross entropies of start and end over its tokens, fp32 [B].

    label_smoothing: spread over all tokens of the window.
    """
    places = by_row(batch[PLACE], batch)[0]
    both = []
    for values, bit in ((output.start_logits, FIRST), (output.end_logits, LAST)):
        logits, is_real = by_row(values.float(), batch)
        normaliser = logits.masked_fill(~is_real, -torch.inf).logsumexp(dim=1)
        is_true = (places & bit).bool() & is_real
        loss = normaliser - logits.masked_fill(~is_true, 0).sum(dim=1)
        if label_smoothing:
            mean = logits.masked_fill(~is_real, 0).sum(dim=1) / is_real.sum(dim=1)
            loss = (1 - label_smoothing) * loss + label_smoothing * (normaliser - mean)
        both.append(loss)
    return (both[0] + both[1]) / 2


def numbers(output: Any, batch: Mapping[str, Any], num_spans: int, longest: int) -> torch.Tensor:
    """Return the numbers of each window, float32 [B, W]. longest: tokens of a span at most.

    Of spans with the same score the one that starts first is the better, then the shorter one.
    """
    starts, is_real = by_row(output.start_logits.float(), batch)
    ends = by_row(output.end_logits.float(), batch)[0]
    is_null = (by_row(batch[PLACE], batch)[0] & NULL).bool() & is_real
    null = (starts + ends).masked_fill(~is_null, 0).sum(dim=1)
    characters = [by_row(batch[name], batch)[0] for name in (START, END)]
    outside = (characters[0] < 0) | ~is_real
    most = min(longest, starts.shape[1])
    # Ends of the spans that begin at each token: [B, L, most].
    reachable = F.pad(ends.masked_fill(outside, -torch.inf), (0, most - 1), value=-torch.inf).unfold(1, most, 1)
    scores = (starts.masked_fill(outside, -torch.inf)[:, :, None] + reachable).flatten(1)
    best, place = scores.sort(dim=1, descending=True, stable=True)
    best = F.pad(best[:, :num_spans], (0, max(0, num_spans - best.shape[1])), value=-torch.inf)
    place = F.pad(place[:, :num_spans], (0, max(0, num_spans - place.shape[1])))
    is_none = best == -torch.inf
    first = place // most
    last = first + place % most
    found = [
        each.gather(1, token.clamp(max=each.shape[1] - 1)).masked_fill(is_none, -1).float()
        for each, token in zip(characters, (first, last), strict=True)
    ]
    return torch.cat([losses(output, batch)[:, None], null[:, None], best.masked_fill(is_none, 0), *found], dim=1)


@dataclass(frozen=True)
class Span:
    """A part of a context."""

    score: float
    start: int
    end: int


@dataclass(frozen=True)
class RowSpans:
    """What the windows of a row give."""

    null: float  # score of no answer: the lowest of its windows
    spans: tuple[Span, ...]  # best first, each once

    @property
    def margin(self) -> float:
        """By how much no answer beats the best span; infinite where there is no span."""
        return self.null - self.spans[0].score if self.spans else np.inf

    def probabilities(self, *, with_null: bool) -> np.ndarray:
        """Return the softmax of the spans' scores, float64 [spans], and of that of no answer behind them."""
        scores = np.array([each.score for each in self.spans] + [self.null] * with_null)
        powers = np.exp(scores - scores.max(initial=-np.inf)) if len(scores) else scores
        return np.asarray(powers / powers.sum()) if len(scores) else scores


def of_row(windows: np.ndarray) -> RowSpans:
    """Return the best spans of a row, as many as a window has. **Pure.** windows: float32 [windows, W].

    A span that several windows have counts once, with its highest score. Of spans with the same score the one that
    starts first is the better, then the shorter one.
    """
    num_spans = (windows.shape[1] - 2) // 3
    scores, starts, ends = (each.reshape(-1) for each in np.split(windows[:, 2:], 3, axis=1))
    best: dict[tuple[int, int], float] = {}
    for place in np.flatnonzero(starts >= 0).tolist():
        key = int(starts[place]), int(ends[place])
        best[key] = max(best.get(key, -np.inf), float(scores[place]))
    in_order = sorted(best.items(), key=lambda each: (-each[1], each[0]))
    found = tuple(Span(score, start, end) for (start, end), score in in_order[:num_spans])
    return RowSpans(float(windows[:, 1].min()), found)
