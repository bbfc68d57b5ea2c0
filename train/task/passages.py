"""From questions with a context to features: windows of the context, each behind its question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ringtune.train import tokens
from ringtune.train.contract import UsageError
from ringtune.train.tokens import IDS, TYPES, Features, Padding, Texts

#: Token columns: what a token is (bits), and the first character of the context that it stands for, and the one behind
#: the last; -1 for tokens of no characters of the context.
PLACE, START, END = "place", "start_character", "end_character"
NULL, FIRST, LAST = 1, 2, 4  # bits of PLACE: the token that means no answer; first and last token of the true answer
#: Feature column: bits of what is not read as it stands.
ODD = "odd"
CUT, LESS_SHARED, NOT_WHOLE = 1, 2, 4
DEFAULT_STRIDE = 128

Answer = tuple[int, int]
"""First character of an answer, and the one behind the last."""


def encode(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Answer | None],
    known: Sequence[bool],
    texts: Texts,
    max_seq_length: int,
    doc_stride: int | None,
) -> Features:
    """Return the windows of rows, at least one for each, in the order of the rows.

    answers: of each row, None if it has none; known: whether that is known. texts: of the rows, kept as they are.
    doc_stride: tokens that neighbours share; None: 128, or a quarter of ``max_seq_length``. A window without the whole
    answer has the place of no answer. Raises UsageError for a tokenizer that does not say where its pieces stand, and
    for a ``doc_stride`` that leaves no window room.
    """
    frame = Frame.of(tokenizer)
    room = max(2, max_seq_length - frame.num_tokens)
    shared = min(DEFAULT_STRIDE, max_seq_length // 4) if doc_stride is None else doc_stride
    if shared >= room:
        raise UsageError("--doc_stride", f"{shared} of {room} tokens are shared: no window is new", legal="fewer")
    builder = _Builder(frame, tokenizer.cls_token_id)
    asked = _pieces(tokenizer, questions)
    given = _pieces(tokenizer, contexts, return_offsets_mapping=True)
    for row, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        question = np.array(asked[IDS][row], dtype=np.int32)
        passage = Passage.of(given[IDS][row], given["offset_mapping"][row], context)
        most = max(room - room // 2, room - len(passage.ids))  # the context keeps half of the room if it needs it
        odd = CUT if len(question) > most else 0
        question = question[:most]
        windows = list(_windows(len(passage.ids), room - len(question), shared))
        if len(windows) > 1 and shared >= room - len(question):
            odd |= LESS_SHARED
        place = passage.tokens_of(answer) if answer is not None else None
        held = [place is not None and start <= place[0] and place[1] < stop for start, stop in windows]
        odd |= NOT_WHOLE if answer is not None and not any(held) else 0
        for (start, stop), holds in zip(windows, held, strict=True):
            inside = (place[0] - start, place[1] - start) if place is not None and holds else None
            builder.add(row, question, passage.part(start, stop), inside, is_known=known[row], odd=odd)
    return builder.features(Padding.of(tokenizer), texts, has_types=TYPES in tokenizer.model_input_names)


def _pieces(tokenizer: Any, texts: Sequence[str], **more: Any) -> Any:
    tokens.require_fast(tokenizer, "answers from a context")
    return tokens.pieces(tokenizer, texts, **more)


def _windows(num_tokens: int, room: int, shared: int) -> Iterator[tuple[int, int]]:
    """Give start and stop of each window, as a tokenizer's ``stride`` makes them. **Pure.**"""
    step = room - (shared if shared < room else room // 2)
    start = 0
    while True:
        yield start, min(num_tokens, start + room)
        if start + room >= num_tokens:
            return
        start += step


@dataclass(frozen=True)
class Frame:
    """The special tokens around a question and a context, and the token types."""

    parts: tuple[list[int], list[int], list[int]]  # before the question, between, behind the context
    types: tuple[list[int], int, list[int], int, list[int]]  # the same, with those of question and context

    @property
    def num_tokens(self) -> int:
        """Special tokens of a window."""
        return sum(map(len, self.parts))

    @classmethod
    def of(cls, tokenizer: Any) -> Frame:
        """Return a tokenizer's own. Raises UsageError for one that makes no pieces of a letter."""
        letter = list(_pieces(tokenizer, ["a"])[IDS][0])
        pair = tokenizer("a", "a", truncation=False, padding=False, return_token_type_ids=True, verbose=False)
        ids, types, num = list(pair[IDS]), list(pair[TYPES]), len(letter)
        places = [at for at in range(len(ids)) if ids[at : at + num] == letter] if letter else []
        first = places[0] if places else 0
        second = next((at for at in places if at >= first + num), None)
        if second is None:
            raise UsageError("--model_name_or_path", "its tokenizer makes no pair of two texts")
        parts = (ids[:first], ids[first + num : second], ids[second + num :])
        behind = types[second + num :]
        return cls(parts, (types[:first], types[first], types[first + num : second], types[second], behind))


@dataclass(frozen=True)
class Passage:
    """The tokens of a context, or of a window of it. All int32 [T]."""

    ids: np.ndarray
    starts: np.ndarray  # first character, -1 for a token of no character
    ends: np.ndarray  # the one behind the last, -1 as well

    @classmethod
    def of(cls, ids: Sequence[int], spans: Sequence[tuple[int, int]], context: str) -> Passage:
        """Return the tokens of a context; blanks in front of a token are not part of it."""
        places = np.array(spans, dtype=np.int32).reshape(-1, 2)
        starts, ends = places[:, 0].copy(), places[:, 1].copy()
        for token, (start, end) in enumerate(spans):
            if context[start : start + 1].isspace():
                starts[token] = end - len(context[start:end].lstrip())
        ends[starts >= ends] = -1
        starts[ends < 0] = -1
        return cls(np.array(ids, dtype=np.int32), starts, ends)

    def tokens_of(self, answer: Answer) -> tuple[int, int] | None:
        """Return first and last token of an answer, which may begin or end within them; None if no token is in it."""
        real = np.flatnonzero(self.starts >= 0)
        inside = real[(self.ends[real] > answer[0]) & (self.starts[real] < answer[1])]
        return (int(inside[0]), int(inside[-1])) if len(inside) else None

    def part(self, start: int, stop: int) -> Passage:
        """Return the tokens of a window."""
        return Passage(self.ids[start:stop], self.starts[start:stop], self.ends[start:stop])


class _Builder:
    """Features, added window by window."""

    def __init__(self, frame: Frame, null_id: int | None) -> None:
        self.frame, self.null_id = frame, null_id
        self.columns: dict[str, list[np.ndarray]] = {IDS: [], TYPES: [], PLACE: [], START: [], END: []}
        self.row_of: list[int] = []
        self.odd: list[int] = []

    def add(
        self, row: int, question: np.ndarray, part: Passage, answer: tuple[int, int] | None, *, is_known: bool, odd: int
    ) -> None:
        """Add a window. part: its tokens of the context. answer: their numbers; None: there is none in it."""
        before, between, behind = self.frame.parts
        ids = np.concatenate([before, question, between, part.ids, behind]).astype(np.int32)
        shift = len(before) + len(question) + len(between)
        place, starts, ends = (np.full(len(ids), fill, dtype=np.int32) for fill in (0, -1, -1))
        inside = slice(shift, shift + len(part.ids))
        starts[inside], ends[inside] = part.starts, part.ends
        null = int((ids == self.null_id).argmax()) if self.null_id is not None else 0
        place[null] = NULL
        if is_known:
            first, last = (null, null) if answer is None else (shift + answer[0], shift + answer[1])
            place[first] |= FIRST
            place[last] |= LAST
        types = self.frame.types
        of_tokens = [types[0], [types[1]] * len(question), types[2], [types[3]] * len(part.ids), types[4]]
        several = {IDS: ids, TYPES: np.concatenate(of_tokens), PLACE: place, START: starts, END: ends}
        for name, values in several.items():
            self.columns[name].append(values)
        self.row_of.append(row)
        self.odd.append(odd)

    def features(self, padding: Padding, texts: Texts, *, has_types: bool) -> Features:
        """Return what was added. has_types: whether the model takes token types."""
        dtypes = {TYPES: np.int8, PLACE: np.int8}
        lengths = np.fromiter(map(len, self.columns[IDS]), dtype=np.int32, count=len(self.row_of))
        columns = {
            name: np.concatenate([np.empty(0), *several]).astype(dtypes.get(name, np.int32))
            for name, several in self.columns.items()
            if name != TYPES or has_types
        }
        return Features(
            token_columns=columns,
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            feature_columns={ODD: np.array(self.odd, dtype=np.int8)},
            row_of=np.array(self.row_of, dtype=np.int64),
            num_terms=np.ones(len(self.row_of), dtype=np.int32),
            lengths=lengths,
            padding=padding,
            texts=texts,
        )
