"""A long row as overlapping windows: the model reads each by itself, and what it gives for them is pooled to one.

All windows of a row are one feature, so that they are in one batch: the loss is of the row, and its gradient reaches
every window.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from ringtune.train import tokens
from ringtune.train.contract import UsageError
from ringtune.train.tokens import IDS, TYPES, Features, Padding

#: Token column of the features: 1 where a window begins.
BEGINS = "window"
#: Feature column of pairs: whether the first text was cut.
CUT = "first_text_is_cut"
#: In a batch, int64 [B, most windows of a row]: which of its sequences are the windows of a row, and -1 for none.
WINDOWS = "windows_of_rows"

#: Pairs are tokenised by several settings in turn, which are the tokenizer's own: one thread at a time.
_PAIRS = threading.Lock()


@dataclass(frozen=True)
class Windows:
    """How long rows are read."""

    stride: int  # tokens that neighbouring windows share
    pooling: Literal["mean", "max"]  # of the logits of a row's windows

    def describe(self) -> str:
        """Return what becomes of long rows, behind their number. **Pure.**"""
        how = {"mean": "averaged", "max": "taken at their largest"}[self.pooling]
        return (
            f"rows have more than --max_seq_length tokens: they are read in windows that share {self.stride}, "
            f"and the logits of these are {how}"
        )

    def encode(self, tokenizer: Any, texts: Sequence[list[str]], max_seq_length: int) -> Features:
        """Return one feature, without labels, for each row: its windows one behind the other.

        texts: one list, or two for pairs, of which the second is read in windows, each behind the first; a first one
        that leaves the second less than it needs, and less than half of the room, is cut. Raises UsageError for a
        tokenizer, or a stride, that windows cannot be made with.
        """
        self._require_usable(tokenizer, len(texts) == 2, max_seq_length)
        if len(texts) == 1:
            return self._encode(tokenizer, texts, max_seq_length)
        with _PAIRS:
            firsts, is_cut = _with_room(tokenizer, texts, max_seq_length)
            features = self._encode(tokenizer, [firsts, texts[1]], max_seq_length)
        return replace(features, feature_columns={CUT: is_cut})

    def _encode(self, tokenizer: Any, texts: Sequence[list[str]], max_seq_length: int) -> Features:
        has_types = TYPES in tokenizer.model_input_names
        encoded = tokenizer(
            *texts,
            truncation="only_second" if len(texts) == 2 else True,
            max_length=max_seq_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            padding=False,
            return_token_type_ids=has_types,
            return_attention_mask=False,
        )
        lengths = np.fromiter(map(len, encoded[IDS]), dtype=np.int64, count=len(encoded[IDS]))
        columns = {IDS: tokens.joined(encoded[IDS], np.int32), BEGINS: np.zeros(int(lengths.sum()), dtype=np.int8)}
        if has_types:
            columns[TYPES] = tokens.joined(encoded[TYPES], np.int8)
        columns[BEGINS][np.cumsum(lengths) - lengths] = 1
        num_rows = len(texts[0])
        row_lengths = np.bincount(encoded["overflow_to_sample_mapping"], weights=lengths, minlength=num_rows)
        return Features(
            token_columns=columns,
            offsets=np.cumsum([0, *row_lengths], dtype=np.int64),
            feature_columns={},
            row_of=np.arange(num_rows, dtype=np.int64),
            num_terms=np.ones(num_rows, dtype=np.int32),
            lengths=row_lengths.astype(np.int32),
            padding=Padding.of(tokenizer),
        )

    def _require_usable(self, tokenizer: Any, is_pair: bool, max_seq_length: int) -> None:
        """Raise UsageError for a tokenizer, or a stride, that windows cannot be made with."""
        tokens.require_fast(tokenizer, "--window_stride", todo="or leave --window_stride out: long rows are cut then")
        room = max_seq_length - tokenizer.num_special_tokens_to_add(is_pair)
        most = max(0, room // 4 if is_pair else room // 2)
        if self.stride > most:
            raise UsageError(
                "--window_stride",
                f"windows that share {self.stride} of {max_seq_length} tokens hardly move on",
                legal=f"at most {most}, {'a quarter' if is_pair else 'half'} of the tokens of a text",
                todo="raise --max_seq_length, or train with a smaller --window_stride",
            )

    def collate(self, features: Features, chosen: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Return a padded batch of the windows of features, the longest first, and which of them are of which row."""
        chosen = np.asarray(chosen, dtype=np.int64)
        begins = features.token_columns[BEGINS]
        starts = [_starts(begins, features.offsets[each], features.lengths[each]) for each in chosen]
        counts = np.fromiter(map(len, starts), dtype=np.int64, count=len(starts))
        ends = [[*each[1:], features.offsets[row + 1]] for row, each in zip(chosen, starts, strict=True)]
        first, last = np.concatenate(starts), np.concatenate(ends).astype(np.int64)
        by_length = np.argsort(first - last, kind="stable")
        view = replace(
            features,
            token_columns={name: each for name, each in features.token_columns.items() if name != BEGINS},
            feature_columns={},
            offsets=first[by_length],
            lengths=(last - first)[by_length],
        )
        batch = tokens.collate(view, np.arange(len(first)))
        place = np.empty(len(first), dtype=np.int64)
        place[by_length] = np.arange(len(first))
        windows = np.full((len(chosen), int(counts.max(initial=0))), -1, dtype=np.int64)
        windows[np.arange(windows.shape[1]) < counts[:, None]] = place
        batch[WINDOWS] = torch.from_numpy(windows)
        for name, values in features.feature_columns.items():
            if name != CUT:
                batch[name] = torch.from_numpy(np.array(values[chosen]))
        return batch

    def pool(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of rows, fp32 [B, W], from those of their windows, fp32 [windows, W]."""
        windows = batch[WINDOWS]
        is_one = (windows >= 0)[:, :, None]
        each = logits[windows.clamp(min=0)]  # [B, most windows of a row, W]
        if self.pooling == "max":
            return each.masked_fill(~is_one, -torch.inf).amax(dim=1)
        return each.masked_fill(~is_one, 0.0).sum(dim=1) / is_one.sum(dim=1)


def _with_room(tokenizer: Any, texts: Sequence[list[str]], max_seq_length: int) -> tuple[list[str], np.ndarray]:
    """Return the first texts of pairs, cut where the second needs room, and which are cut, bool [N]."""
    room = max_seq_length - tokenizer.num_special_tokens_to_add(True)
    settings = {"add_special_tokens": False, "truncation": False, "padding": False, "return_attention_mask": False}
    seconds = tokenizer(texts[1], **settings, verbose=False)[IDS]
    places = tokenizer(texts[0], **settings, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    most = [max(room // 2, room - len(each)) for each in seconds]
    is_cut = np.array([len(each) > most[row] for row, each in enumerate(places)])
    firsts = [text[: places[row][most[row] - 1][1]] if is_cut[row] else text for row, text in enumerate(texts[0])]
    return firsts, is_cut


def _starts(begins: np.ndarray, offset: int, length: int) -> np.ndarray:
    """Return where the windows of a feature begin among all tokens, int64."""
    return np.flatnonzero(begins[offset : offset + length]) + offset


def num_windows(features: Features) -> np.ndarray:
    """Return the windows of each feature, int64 [num_features]. **Pure.**"""
    return np.add.reduceat(features.token_columns[BEGINS], features.offsets[:-1], dtype=np.int64)
