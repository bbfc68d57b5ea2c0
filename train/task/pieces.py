"""From rows of words to features: windows of word pieces, of which the first of each word is a term of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ringtune.train import tokens, words
from ringtune.train.task.sequence import LABELS
from ringtune.train.tokens import IDS, TYPES, Features, Padding

#: Token columns: the tag of a term, and its word's number in its row. Feature column: the words of its row.
WORD, NUM_WORDS = "word", "num_words"
#: Column of the reader's rows: first character of each word, and the one behind it, [2 * words].
WORDS = "words"
NO_TERM = -100  # of a token that is no term
NO_TAG = -1  # of a term of a row without tags


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    bounds: Sequence[words.Bounds],
    tags: Sequence[np.ndarray | None],
    max_seq_length: int,
) -> Features:
    """Return the features of rows, at least one for each, in the order of the rows.

    bounds: where the words of each text are. tags: number of each word's tag; None: not known. The text is cut into
    pieces as a whole, as a pipeline of transformers does it. A word is a term in one window, a word without a piece in
    none. Raises UsageError for a tokenizer that does not say where its pieces stand.
    """
    tokens.require_fast(tokenizer, "tags of words")
    encoded = tokens.pieces(tokenizer, texts, return_offsets_mapping=True)
    before, behind, token_type = specials(tokenizer)
    room = max(1, max_seq_length - len(before) - len(behind))
    builder = _Builder(before, behind)
    for row, (text, places, labels) in enumerate(zip(texts, bounds, tags, strict=True)):
        ids = np.array(encoded[IDS][row], dtype=np.int32)
        first = words.first_pieces(text, places, encoded["offset_mapping"][row])
        known = np.flatnonzero(first >= 0)
        labels_T = np.full(len(ids), NO_TERM, dtype=np.int32)
        words_T = np.full(len(ids), -1, dtype=np.int32)
        labels_T[first[known]] = NO_TAG if labels is None else labels[known]
        words_T[first[known]] = known
        for window in words.windows(first[known], len(ids), room):
            builder.add(row, len(places), ids, labels_T, words_T, window, first[known])
    return builder.features(Padding.of(tokenizer), token_type if TYPES in tokenizer.model_input_names else None)


def specials(tokenizer: Any) -> tuple[list[int], list[int], int]:
    """Return the special tokens before and behind a text, and its token type."""
    shown = tokenizer(
        "a", truncation=False, padding=False, return_special_tokens_mask=True, return_token_type_ids=True, verbose=False
    )
    is_own = [index for index, special in enumerate(shown["special_tokens_mask"]) if not special]
    if not is_own:  # a tokenizer to which every letter is the unknown token
        is_own = [index for index, token in enumerate(shown[IDS]) if token == tokenizer.unk_token_id]
    return shown[IDS][: is_own[0]], shown[IDS][is_own[-1] + 1 :], shown[TYPES][is_own[0]]


class _Builder:
    """Features, added window by window."""

    def __init__(self, before: list[int], behind: list[int]) -> None:
        self.before, self.behind = before, behind
        self.columns: dict[str, list[np.ndarray]] = {IDS: [], LABELS: [], WORD: []}
        self.row_of: list[int] = []
        self.num_words: list[int] = []
        self.num_terms: list[int] = []

    def add(
        self,
        row: int,
        num_words: int,
        ids: np.ndarray,
        labels: np.ndarray,
        numbers: np.ndarray,
        window: words.Window,
        first: np.ndarray,
    ) -> None:
        """Add a window of a row. ids, labels, numbers: of all its tokens. first: the first pieces of its words."""
        part = slice(window.start, window.stop)
        is_mine = np.zeros(len(ids), dtype=bool)
        is_mine[first[window.words.start : window.words.stop]] = True
        mine_T = is_mine[part]
        self._extend(IDS, ids[part], self.before, self.behind)
        self._extend(LABELS, np.where(mine_T, labels[part], NO_TERM), *self._around(NO_TERM))
        self._extend(WORD, np.where(mine_T, numbers[part], -1), *self._around(-1))
        self.row_of.append(row)
        self.num_words.append(num_words)
        self.num_terms.append(len(window.words))

    def _around(self, value: int) -> tuple[list[int], list[int]]:
        return [value] * len(self.before), [value] * len(self.behind)

    def _extend(self, name: str, values: np.ndarray, before: list[int], behind: list[int]) -> None:
        self.columns[name].append(np.concatenate([before, values, behind]).astype(np.int32))

    def features(self, padding: Padding, token_type: int | None) -> Features:
        """Return what was added. token_type: of all tokens; None: the model has no types."""
        lengths = np.fromiter(map(len, self.columns[IDS]), dtype=np.int32, count=len(self.row_of))
        columns = {name: np.concatenate([np.empty(0, np.int32), *each]) for name, each in self.columns.items()}
        if token_type is not None:
            columns[TYPES] = np.full(int(lengths.sum()), token_type, dtype=np.int8)
        return Features(
            token_columns=columns,
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            feature_columns={NUM_WORDS: np.array(self.num_words, dtype=np.int32)},
            row_of=np.array(self.row_of, dtype=np.int64),
            num_terms=np.array(self.num_terms, dtype=np.int32),
            lengths=lengths,
            padding=padding,
        )
