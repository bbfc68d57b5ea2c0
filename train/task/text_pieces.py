"""From texts without labels to features, and from features with masked tokens to a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from ringtune.train import tokens, words
from ringtune.train.masked_tokens import EVEN, PACKED_PLACES, PADDED_PLACES
from ringtune.train.task.masking import BEGINS, GOES_ON, NEVER, Masking, Vocabulary
from ringtune.train.task.pieces import specials
from ringtune.train.task.sequence import LABELS
from ringtune.train.tokens import IDS, TYPES, Features, Padding

#: Token column: what may be masked of a feature, as `masking.choose` reads it; of one to fill, what is to be filled.
UNITS = "mask_unit"
Drawn = tuple[np.ndarray, np.ndarray]
"""Places of a feature's masked tokens, ascending, and what stands there instead, int64 [count] each."""


def encode(tokenizer: Any, texts: Sequence[str], max_seq_length: int, masking: Masking) -> Features:
    """Return the features of texts, in their order; a text without tokens has none.

    To be joined, a text is one feature of any length; by itself it is cut into as many as it takes, each with the
    special tokens around it. Raises UsageError for whole words and a tokenizer that does not know them.
    """
    assert masking.vocabulary is not None
    if masking.whole_words:
        tokens.require_fast(tokenizer, "--whole_word_mask", todo="or leave --whole_word_mask out")
    encoded = tokens.pieces(tokenizer, texts)
    builder = _Builder(tokenizer)
    room = builder.room(max_seq_length)
    for row in range(len(texts)):
        ids = np.array(encoded[IDS][row], dtype=np.int32)
        units = np.where(np.isin(ids, masking.vocabulary.special), NEVER, BEGINS)
        if masking.whole_words and len(ids):
            units = np.where((units == BEGINS) & _same_word(encoded.word_ids(row)), GOES_ON, units)
        step = room if masking.line_by_line else max(1, len(ids))
        for start in range(0, len(ids), step):
            builder.add(row, ids[start : start + step], units[start : start + step])
    return builder.features(masking.count)


def encode_masks(tokenizer: Any, texts: Sequence[str], max_seq_length: int, vocabulary: Vocabulary) -> Features:
    """Return the features of texts with mask tokens, in their order; a term is such a token.

    A text of more tokens than a model takes is read in windows, which share up to a quarter; a mask token is a term
    where it stands farther from the cut, and a window without any is no feature.
    """
    encoded = tokens.pieces(tokenizer, texts)
    builder = _Builder(tokenizer)
    room = builder.room(max_seq_length)
    for row in range(len(texts)):
        ids = np.array(encoded[IDS][row], dtype=np.int32)
        for window in words.windows(np.arange(len(ids)), len(ids), room):
            units = np.full(len(ids), NEVER)
            mine = slice(window.words.start, window.words.stop)
            units[mine][ids[mine] == vocabulary.mask] = BEGINS
            if units.any():
                builder.add(row, ids[window.start : window.stop], units[window.start : window.stop])
    return builder.features(lambda num_candidates: num_candidates.astype(np.int32))


def _same_word(numbers: Sequence[int | None]) -> np.ndarray:
    """Return which tokens are of the same word as the one before, bool [T]. numbers: of the words, of a tokenizer."""
    known = np.array([-1 if each is None else each for each in numbers])
    return np.concatenate([[False], (known[1:] == known[:-1]) & (known[1:] >= 0)])


class _Builder:
    """Features, added one by one."""

    def __init__(self, tokenizer: Any) -> None:
        self.before, self.behind, self.type = specials(tokenizer)
        self.has_types = TYPES in tokenizer.model_input_names
        self.padding = Padding.of(tokenizer)
        self.ids: list[np.ndarray] = []
        self.units: list[np.ndarray] = []
        self.row_of: list[int] = []

    def room(self, max_seq_length: int) -> int:
        """Return how many tokens of a text a feature has at most."""
        return max(1, max_seq_length - len(self.before) - len(self.behind))

    def add(self, row: int, ids: np.ndarray, units: np.ndarray) -> None:
        """Add a feature of a row."""
        self.ids.append(np.concatenate([self.before, ids, self.behind]).astype(np.int32))
        self.units.append(np.pad(units, (len(self.before), len(self.behind))).astype(np.int8))
        self.row_of.append(row)

    def features(self, count: Callable[[np.ndarray], np.ndarray]) -> Features:
        """Return what was added. count: from the tokens that could be masked of features to their terms."""
        ids = np.concatenate([np.empty(0, np.int32), *self.ids])
        columns = {IDS: ids, UNITS: np.concatenate([np.empty(0, np.int8), *self.units])}
        if self.has_types:
            columns[TYPES] = np.full(len(ids), self.type, dtype=np.int8)
        lengths = np.fromiter(map(len, self.ids), dtype=np.int32, count=len(self.ids))
        rows = np.array(self.row_of, dtype=np.int64)
        return features_of(columns, lengths, rows, count, self.padding)


def features_of(
    columns: dict[str, np.ndarray],
    lengths: np.ndarray,
    row_of: np.ndarray,
    count: Callable[[np.ndarray], np.ndarray],
    padding: Padding,
) -> Features:
    """Return features of tokens that stand one behind the other. **Pure.**

    columns: of tokens, with UNITS. lengths: of the features. row_of, count: as there.
    """
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(columns[UNITS] != NEVER)])
    return Features(
        token_columns=columns,
        offsets=offsets,
        feature_columns={},
        row_of=row_of,
        num_terms=count(before[offsets[1:]] - before[offsets[:-1]]),
        lengths=lengths,
        padding=padding,
    )


def units_of(features: Features, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and UNITS of one feature, [T] each."""
    part = slice(int(features.offsets[number]), int(features.offsets[number + 1]))
    return features.token_columns[IDS][part], features.token_columns[UNITS][part]


def collate(
    features: Features, chosen: Sequence[int] | np.ndarray, draw: Callable[[int], Drawn]
) -> dict[str, torch.Tensor]:
    """Return a padded batch whose masked tokens are replaced. draw: from the number of a feature to what is masked.

    Beside the model's inputs: the tokens that stood there, and where in the batch, in it as it is and packed, int64
    [terms] in the order of the features; the places are made a multiple of EVEN by the last one.
    """
    chosen = np.asarray(chosen, dtype=np.int64)
    batch = tokens.collate(features, chosen)
    del batch[UNITS]
    ids_BT = batch[IDS].numpy()
    lengths = features.lengths[chosen].astype(np.int64)
    width = ids_BT.shape[1]
    first_padded = np.arange(len(chosen)) * width + (width - lengths if features.padding.side == "left" else 0)
    first_packed = np.cumsum(lengths) - lengths
    drawn = [draw(int(number)) for number in chosen]
    padded = _joined(start + places for start, (places, _) in zip(first_padded, drawn, strict=True))
    packed = _joined(start + places for start, (places, _) in zip(first_packed, drawn, strict=True))
    flat = ids_BT.reshape(-1)
    labels = flat[padded].copy()
    flat[padded] = _joined(instead for _, instead in drawn)
    found = {LABELS: labels, PADDED_PLACES: _evened(padded), PACKED_PLACES: _evened(packed)}
    return batch | {name: torch.from_numpy(each) for name, each in found.items()}


def _joined(several: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *several])


def _evened(places: np.ndarray) -> np.ndarray:
    return np.concatenate([places, np.repeat(places[-1:], -len(places) % EVEN)])
