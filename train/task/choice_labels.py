"""How labels name the right one of a row's choices: decided over all training rows, and kept with the model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.shapes import CHOICES
from ringtune.train.task.labels import missing_label

FLAG = "--choice_labels"
#: By its number, by its letter, or by its text.
FROM_0, FROM_1, LETTERS, TEXTS = "from_0", "from_1", "letters", "texts"
SCHEMES = (FROM_0, FROM_1, LETTERS, TEXTS)
WORDS = {FROM_0: "numbers from 0", FROM_1: "numbers from 1", LETTERS: "letters", TEXTS: "texts of choices"}
NO_CHOICE = -1  # of a label that names none
_NUMBER = re.compile(r"(\d{1,9})(\.0*)?")

Choices = Sequence[str | None]
"""The choices of a row; None for a missing one."""


def number_of(label: str | None, choices: Choices, scheme: str) -> int:
    """Return which choice a label names, from 0, NO_CHOICE if it names none or more than one. **Pure.**"""
    text = (label or "").strip()
    if scheme == TEXTS:
        found = [number for number, choice in enumerate(choices) if choice is not None and choice.strip() == text]
        return found[0] if len(found) == 1 else NO_CHOICE
    if scheme == LETTERS:
        number = ord(text.upper()) - ord("A") if len(text) == 1 and text.isascii() and text.isalpha() else NO_CHOICE
    else:
        match = _NUMBER.fullmatch(text)
        number = int(match[1]) - (scheme == FROM_1) if match else NO_CHOICE
    return number if 0 <= number < len(choices) and choices[number] is not None else NO_CHOICE


class ChoiceColumn:
    """The labels of all training rows beside their choices, added batch by batch."""

    def __init__(self, name: str, asked: str | None) -> None:
        """name: of the column with the labels. asked: ``--choice_labels``; None: decide."""
        self.name, self.asked = name, asked
        self.num_choices = 0  # the most of any row
        self.num_rows = 0
        # Of each scheme, the first row that it does not fit: its number, its place, what is wrong, and its label.
        self.wrong: dict[str, tuple[int, str, str, str]] = {}
        # Of two schemes, the first row in which they name different choices: its place and its label.
        self.differ: dict[tuple[str, str], tuple[str, str]] = {}

    def add(self, rows: pa.RecordBatch, places: Iterable[str]) -> None:
        """Take note of the labels and choices of the reader's rows. places: where each is, for messages.

        Raises UsageError for a row without a label.
        """
        self.add_choices(rows)
        choices, labels = rows.column(CHOICES).to_pylist(), rows.column("label").to_pylist()
        for label, row, place in zip(labels, choices, places, strict=True):
            if label is None or not label.strip():
                raise missing_label(place, self.name)
            self._add(label, row, place)

    def add_choices(self, rows: pa.RecordBatch) -> None:
        """Take note of how many choices rows have."""
        self.num_choices = max(self.num_choices, *map(len, rows.column(CHOICES).to_pylist()))

    def _add(self, label: str, choices: Choices, place: str) -> None:
        alive = {each: number_of(label, choices, each) for each in SCHEMES if each not in self.wrong}
        for each, number in alive.items():
            if number == NO_CHOICE:
                self.wrong[each] = (self.num_rows, place, _what_is_wrong(label, choices, each, self.name), label)
        for pair in itertools.combinations([each for each in alive if each not in self.wrong], 2):
            if alive[pair[0]] != alive[pair[1]]:
                self.differ.setdefault(pair, (place, label))
        self.num_rows += 1

    def scheme(self) -> str:
        """Return how the labels name choices. Raises UsageError for labels that name none, or may be read two ways.

        Numbers are counted from 0, unless they are said to be counted from 1.
        """
        if self.asked is not None:
            if self.asked in self.wrong:
                raise self._error(self.asked)
            return self.asked
        fit = [each for each in (FROM_0, LETTERS, TEXTS) if each not in self.wrong]
        for pair in itertools.combinations(fit, 2):
            if pair in self.differ:
                place, label = self.differ[pair]
                raise UsageError(
                    place,
                    f"the label {shown(label)} names one choice as {WORDS[pair[0]]}, another as {WORDS[pair[1]]}",
                    legal="one reading",
                    todo=f"{FLAG} {pair[0]} or {FLAG} {pair[1]}",
                )
        if fit:
            return fit[0]
        if FROM_1 not in self.wrong:
            _, place, what, _ = self.wrong[FROM_0]
            raise UsageError(
                place,
                f"{what}; no label is 0, and all of them fit if choices are counted from 1",
                legal="numbers from 0, or numbers from 1 where that is said",
                todo=f"{FLAG} {FROM_1}",
            )
        raise self._error(max((FROM_0, LETTERS, TEXTS), key=self._closeness))

    def note(self) -> str:
        """Return how the labels were read where another reading is possible, for the user; "" elsewhere."""
        is_open = self.asked is None and FROM_1 not in self.wrong and FROM_0 not in self.wrong
        return f"no label is 0: numbers are counted from 0 all the same ({FLAG} {FROM_1} counts from 1)" * is_open

    def _closeness(self, scheme: str) -> tuple[int, bool]:
        """Return how near the labels are to a scheme: rows that it fits, and whether the next one is of its kind."""
        row, _, _, label = self.wrong[scheme]
        text = label.strip()
        is_number, is_letter = _NUMBER.fullmatch(text) is not None, len(text) == 1 and text.isalpha()
        return row, {FROM_0: is_number, LETTERS: is_letter, TEXTS: not is_number and not is_letter}[scheme]

    def _error(self, scheme: str) -> UsageError:
        _, place, what, _ = self.wrong[scheme]
        return UsageError(
            place,
            what,
            legal="a choice's number, its letter, or its text, alike in all rows",
            todo=f"correct the label, or set {FLAG} to one of {', '.join(SCHEMES)}",
        )


def _what_is_wrong(label: str, choices: Choices, scheme: str, name: str) -> str:
    """Return in words why a label names no choice. **Pure.**"""
    num_alike = sum(choice is not None and choice.strip() == label.strip() for choice in choices)
    if scheme == TEXTS and num_alike > 1:
        return f"the label {shown(label)} in column {name[:40]!r} is the text of {num_alike} of its choices"
    of = f"{len(choices)} choices" + ("" if None not in choices else f", of which {choices.count(None)} are missing")
    return f"the label {shown(label)} in column {name[:40]!r} names none of its {of} ({WORDS[scheme]})"
