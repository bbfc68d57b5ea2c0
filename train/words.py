"""Words: where they stand in a text, and the windows of a row that has more of them than a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

Bounds = list[tuple[int, int]]
"""First character of each word in its text, and the one behind its last."""

# A Chinese character is a word, as in BERT's tokenizer; otherwise letters, marks and digits that stand together are
# one, and any other character that is no blank.
_WORD = regex.compile(r"\p{Han}|(?:(?!\p{Han})[\p{L}\p{M}\p{N}_])+|[^\s\p{L}\p{M}\p{N}_]")
OVERLAP = 4  # the part of a window that the next one has again, at most: one in so many tokens


def find(text: str) -> Bounds:
    """Return the words of a text. **Pure.**"""
    return [match.span() for match in _WORD.finditer(text)]


def joined(words: Sequence[str]) -> tuple[str, Bounds]:
    """Return words as a text with blanks between them, and where they stand in it. **Pure.**"""
    bounds, start = [], 0
    for word in words:
        bounds.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), bounds


def first_pieces(text: str, bounds: Bounds, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the token that is the first piece of each word, int64 [words]; -1 for a word without one of its own.

    offsets: characters of each token. A piece that covers several words is that of the first. **Pure.**
    """
    found = np.full(len(bounds), -1, dtype=np.int64)
    word = 0
    for token, (start, stop) in enumerate(offsets):
        while start < stop and text[start].isspace():  # pieces of sentencepiece begin with the blank before the word
            start += 1
        if start == stop:
            continue
        while word < len(bounds) and bounds[word][1] <= start:
            word += 1
        if word < len(bounds) and bounds[word][0] < stop and found[word] < 0:
            found[word] = token
    return found


@dataclass(frozen=True)
class Window:
    """A part of a row that a model reads at once."""

    start: int  # its first token
    stop: int
    words: range  # that are predicted, and trained, in it: among the words that have a piece


def windows(first: np.ndarray, num_tokens: int, room: int) -> list[Window]:
    """Return the windows of a row: one where all of it has room. **Pure.**

    first: the first token of each word, int64 [W], rising. room: tokens of a window at most, at least 1. Neighbours
    share whole words, up to a quarter of the room; a word is predicted where it stands farther from the cut. A word of
    more tokens than there is room for loses the last of them.
    """
    if num_tokens <= room or not len(first):
        return [Window(0, min(num_tokens, room), range(len(first)))]
    ends = np.append(first[1:], num_tokens)  # what follows a word up to the next one goes with it
    begins = first.copy()
    if first[0] <= room // OVERLAP:  # pieces that are no word's, before the first one
        begins[0] = 0
    spans = []
    start = 0
    while True:
        stop = start + 1
        while stop < len(first) and ends[stop] - begins[start] <= room:
            stop += 1
        spans.append((start, stop))
        if stop == len(first):
            break
        start = _next_start(begins, ends, start, stop, room)
    found = []
    begin = 0
    for number, (start, stop) in enumerate(spans):
        end = stop
        if number + 1 < len(spans):
            end = _middle(begins, ends, spans[number + 1][0], stop)
        found.append(Window(int(begins[start]), int(min(ends[stop - 1], begins[start] + room)), range(begin, end)))
        begin = end
    return found


def _middle(begins: np.ndarray, ends: np.ndarray, start: int, stop: int) -> int:
    """Return which of the words ``start`` to ``stop``, shared by two windows, is the first that the second predicts.

    It is the first with more tokens before it, in the second window, than behind it in the first one.
    """
    for word in range(start, stop):
        if begins[word] - begins[start] > ends[stop - 1] - ends[word]:
            return word
    return stop


def _next_start(begins: np.ndarray, ends: np.ndarray, start: int, stop: int, room: int) -> int:
    """Return the first word of the window behind that of words ``start`` to ``stop``."""
    following = stop
    while (
        following - 1 > start
        and ends[stop - 1] - begins[following - 1] <= room // OVERLAP
        and ends[stop] - begins[following - 1] <= room
    ):
        following -= 1
    return following
