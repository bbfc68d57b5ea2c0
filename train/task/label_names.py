"""Which labels there are where a row may have several, or none: decided over all training rows."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train.columns import Columns, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown
from ringtune.train.label_sets import names_of

_INTEGER = re.compile(r"[-+]?\d+")


class LabelNames:
    """The labels of all rows, added batch by batch."""

    def __init__(self, columns: Columns, *, declared: tuple[str, ...] = ()) -> None:
        """declared: the labels that a data set declares, in its order."""
        self.columns = columns
        self.declared = declared or (columns.sets.columns if columns.sets else ())
        self.found: set[str] = set()

    def add(self, labels: pa.Array, places: Iterable[str]) -> None:
        """Take note of labels, as `LabelSets.read` gives them, string [N]. places: where each row is, for messages.

        Raises UsageError for the first row whose labels are none.
        """
        for each in pc.unique(labels).to_pylist():
            names = names_of(each)
            if not isinstance(names, list):
                place = list(places)[labels.to_pylist().index(each)]
                raise wrong_labels(place, self.columns, names)
            self.found.update(names)

    def note(self) -> str:
        """Return nothing: there is one reading of these labels."""
        return ""

    def classes(self, where: str, *, fewest: int = 2) -> tuple[str, ...]:
        """Return the labels in their order: as declared, whole numbers by their value, else as in the alphabet.

        where: the training rows, for messages. Raises UsageError for fewer than ``fewest``.
        """
        names = self.declared or tuple(self.found)
        if len(names) < fewest or not self.found:
            only = f"the only label in it is {shown(names[0])}" if self.found else "no row has a label"
            raise UsageError(
                where,
                f"{only} (column {shown_names(self.columns.labels)})",
                legal="two labels or more",
                todo="one label, there or not, is a class for each row: a column of 0 and 1, or of two names",
            )
        if self.declared:
            return names
        is_number = all(map(_INTEGER.fullmatch, names))
        return tuple(sorted(names, key=lambda each: (int(each), each)) if is_number else sorted(names))


def wrong_labels(where: str, columns: Columns | None, wrong: str | None) -> UsageError:
    """Return the error of a row whose labels are none. wrong: in words, None if there is nothing. **Pure.**"""
    several = columns.labels if columns else ()
    separator = columns.sets.separator if columns and columns.sets else None
    if len(several) > 1:
        legal = "0 or 1 in the column of each label"
    elif separator is not None:
        legal = f"labels with {separator!r} between them, or an empty text"
    else:
        legal = "labels in every row, or an empty list"
    return UsageError(where, wrong or f"there is no label in column {shown_names(several)}", legal=legal)
