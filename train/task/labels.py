"""What a label column is, decided over the whole column: the one place with these rules.

Labels arrive as texts from every format. Blanks around a label are not part of it.

- They are **ratings** (a regression) if asked for; or, unless classes are asked for, if any of them is a decimal
  fraction, or if all are numbers and not all are whole.
- Otherwise they are **classes**: whole numbers in the order of their value, truth values as False and True, anything
  else in the order of the alphabet. A data set that declares its classes keeps their names and their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train.contract import UsageError

_FRACTION = r"^\s*[-+]?\d*\.\d+\s*$"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d+")
_TRUTH = {"false", "true"}


class LabelColumn:
    """The values of one label column, added batch by batch."""

    def __init__(self, name: str, *, regression: bool | None, declared: tuple[str, ...] = ()) -> None:
        """regression: as the user asked; None: decide. declared: the classes that a data set declares."""
        self.name, self.regression, self.declared = name, regression, declared
        self.has_fraction = False
        self.missing: str | None = None  # where the first row without a label is
        self.first_row: dict[str, str] = {}  # where each distinct label stands first

    def add(self, labels: pa.Array, places: Iterable[str]) -> None:
        """Take note of labels, string [N]. places: where each row is, for messages; read only when needed."""
        if self.regression or self.declared:
            return
        labels = pc.utf8_trim_whitespace(labels)
        if not self.has_fraction:
            self.has_fraction = bool(pc.any(pc.match_substring_regex(labels, _FRACTION)).as_py())
        if self.has_fraction and self.regression is None:
            self.first_row.clear()  # ratings: there may be a million different ones
            return
        new = [each for each in pc.unique(labels).to_pylist() if each not in self.first_row]
        if new:
            where = list(places)
            values = labels.to_pylist()
            for each in new:
                place = where[values.index(each)]
                if not each:
                    self.missing = self.missing or place
                else:
                    self.first_row[each] = place

    def are_ratings(self) -> bool:
        """Return whether the labels are numbers to predict, not classes."""
        if self.regression is not None or self.declared:
            return bool(self.regression)
        return self.has_fraction or self._are_fractions()

    def _are_fractions(self) -> bool:
        """Return whether all labels are numbers and not all are whole."""
        found = self.first_row
        return bool(found) and all(map(_NUMBER.fullmatch, found)) and not all(map(_INTEGER.fullmatch, found))

    def classes(self, where: str) -> tuple[str, ...]:
        """Return the names of the classes in their order. Raises UsageError for labels that are none.

        where: the training rows, for messages.
        """
        if self.declared:
            return self.declared
        if self._are_fractions():
            example = next(each for each in self.first_row if not _INTEGER.fullmatch(each))
            raise UsageError(
                where,
                f"column {self.name!r} holds numbers such as {example!r}, not classes",
                legal="strings or whole numbers",
                todo="use --regression true, or other labels",
            )
        if self.missing is not None:
            raise missing_label(self.missing, self.name)
        if {each.lower() for each in self.first_row} == _TRUTH:
            return ("False", "True")
        if len(self.first_row) < 2:
            raise UsageError(
                where, f"all rows have the label {next(iter(self.first_row), None)!r}", legal="two classes or more"
            )
        if all(map(_INTEGER.fullmatch, self.first_row)):
            return tuple(sorted(self.first_row, key=lambda each: (int(each), each)))
        return tuple(sorted(self.first_row))


def missing_label(where: str, column: str) -> UsageError:
    """Return the error of a row without a label. **Pure.**"""
    return UsageError(
        where, f"there is no label in column {column!r}", legal="a text, a number or a truth value in every row"
    )


def is_number(label: str) -> bool:
    """Return whether a text is a decimal number. **Pure.**"""
    return _NUMBER.fullmatch(label.strip()) is not None
