"""What a label column is, decided over the whole column: the one place with these rules.

Labels arrive as texts from every format. Blanks around a label are not part of it.

- They are **ratings** (a regression) if asked for; or, unless classes are asked for, if any of them is a decimal
  fraction, if all are numbers and not all are whole, or if they are more than 20 different whole numbers written as
  decimals (``3.0``).
- Otherwise they are **classes**: whole numbers in the order of their value, truth values as False and True, anything
  else in the order of the alphabet. Whole numbers written as decimals, as pandas writes a column that had gaps, are
  classes named as whole numbers; that is reported. A data set that declares its classes keeps their names and order.
- Where all other labels are numbers, a word that stands for a gap (``n/a``, ``?``, ``null`` ...) is a missing label.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.source import NO_CHARACTER

_FRACTION = r"^[-+]?\d*\.\d*[1-9]\d*$"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d+")
_WHOLE = re.compile(r"([-+]?\d+)(\.0*)?")
TRUTH = {"false", "true"}
_GAPS = {"n/a", "na", "nan", "null", "none", "?", "-", "--", "unknown", "missing"}
_INFINITE = {f"{sign}{name}" for sign in ("", "+", "-") for name in ("inf", "infinity")}
LONGEST = 200  # characters of a class's name
MOST_WHOLE_CLASSES = 20  # different whole numbers written as decimals that are still classes


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
        many = self._are_whole_decimals() and len(set(map(_whole, self.first_row))) > MOST_WHOLE_CLASSES
        return self.has_fraction or self._are_fractions() or many

    def note(self) -> str:
        """Return how the labels were read where another reading is possible, for the user; "" elsewhere."""
        if self.declared or self.regression:
            return ""
        joined = [each for each in self.first_row if separator_of(each, self.first_row)]
        if joined:
            count = f"{len(joined)} of {len(self.first_row)} classes are"
            return f"{count} others joined, such as {shown(joined[0])}; {several_todo(joined[0], self.first_row)}"
        if self.regression is not None or not self._are_whole_decimals():
            return ""
        example = next(each for each in self.first_row if "." in each)
        what = f"labels are whole numbers written as decimals, such as {example!r}: "
        if self.are_ratings():
            return (
                what + f"more than {MOST_WHOLE_CLASSES} of them, so a number to predict; --regression false for classes"
            )
        return what + "few, so classes; --regression true for a number to predict"

    def _are_whole_decimals(self) -> bool:
        """Return whether all labels are whole numbers and some are written as decimals."""
        found = self.first_row
        return bool(found) and all(map(_WHOLE.fullmatch, found)) and any("." in each for each in found)

    def _are_fractions(self) -> bool:
        """Return whether all labels are numbers and not all are whole."""
        found = self.first_row
        return bool(found) and all(map(_NUMBER.fullmatch, found)) and not all(map(_WHOLE.fullmatch, found))

    def classes(self, where: str, *, fewest: int = 2) -> tuple[str, ...]:
        """Return the names of the classes in their order. Raises UsageError for labels that are none.

        where: the training rows, for messages. fewest: how many classes there must be.
        """
        if self.declared:
            return self.declared
        if self._are_fractions():
            example = next(each for each in self.first_row if not _WHOLE.fullmatch(each))
            raise UsageError(
                where,
                f"column {self.name[:40]!r} holds numbers such as {shown(example)}, not classes",
                legal="strings or whole numbers",
                todo="use --regression true, or other labels",
            )
        gap = self.missing or self._gap()
        if gap is not None:
            raise missing_label(gap, self.name)
        self._refuse_texts()
        if {each.lower() for each in self.first_row} == TRUTH:
            return ("False", "True")
        self._refuse_truth_among_numbers()
        names = set(map(_whole, self.first_row)) if self._are_whole_decimals() else set(self.first_row)
        names = {each for each in names if _whole(each) == each or _whole(each) not in names}  # 1.0 beside 1 is 1
        if len(names) < fewest:
            label = shown(next(iter(names), None))
            raise UsageError(where, f"all rows have the label {label}", legal="two classes or more")
        if all(map(_INTEGER.fullmatch, names)):
            return tuple(sorted(names, key=lambda each: (int(each), each)))
        return tuple(sorted(names))

    def _refuse_texts(self) -> None:
        """Raise UsageError for the first label that is too long for a name, or was not read whole."""
        for label, place in self.first_row.items():
            if len(label) > LONGEST:
                raise UsageError(
                    place,
                    f"the label in column {self.name[:40]!r} has {len(label)} characters: {shown(label)}",
                    legal=f"at most {LONGEST}",
                    todo="name another column with --label_column_name",
                )
            if NO_CHARACTER in label:
                raise UsageError(
                    place,
                    f"the label {shown(label)} in column {self.name[:40]!r} is not UTF-8",
                    legal="text in UTF-8",
                    todo="convert the file",
                )

    def _refuse_truth_among_numbers(self) -> None:
        """Raise UsageError for truth values beside 0 and 1: they may be the same two classes, or others."""
        truth = [each for each in self.first_row if each.lower() in TRUTH]
        others = [each for each in self.first_row if each not in truth]
        if truth and others and all(map(_NUMBER.fullmatch, others)):
            raise UsageError(
                self.first_row[truth[0]],
                f"the label is {truth[0]} in column {self.name[:40]!r}, which holds numbers, too",
                legal="either truth values or numbers",
            )

    def _gap(self) -> str | None:
        """Return where the first word for a gap stands in a column of numbers, None if there is none."""
        words = [each for each in self.first_row if not _NUMBER.fullmatch(each)]
        known = _GAPS | _INFINITE
        is_gap = len(words) < len(self.first_row) and bool(words) and all(each.lower() in known for each in words)
        return self.first_row[words[0]] if is_gap else None


def missing_label(where: str, column: str) -> UsageError:
    """Return the error of a row without a label. **Pure.**"""
    return UsageError(
        where, f"there is no label in column {column[:40]!r}", legal="a text, a number or a truth value in every row"
    )


def separator_of(label: str, classes: Container[str]) -> str:
    """Return what separates classes that a label joins, such as "," in ``a,b`` beside ``a`` and ``b``. **Pure.**"""
    return next(
        (each for each in ",;|" if each in label and all(part.strip() in classes for part in label.split(each))), ""
    )


def several_todo(label: str, classes: Container[str]) -> str:
    """Return what to do where a label is several classes, "" where it is not. **Pure.**"""
    found = separator_of(label, classes)
    return f"--label_separator '{found}' if a row may have several labels" if found else ""


def is_number(label: str) -> bool:
    """Return whether a text is a decimal number. **Pure.**"""
    return _NUMBER.fullmatch(label.strip()) is not None


def without_decimals(label: str) -> str:
    """Return a whole number written as a decimal without its point, anything else as it is. **Pure.**"""
    return _whole(label.strip())


def _whole(label: str) -> str:
    match = _WHOLE.fullmatch(label)
    return match[1] if match else label
