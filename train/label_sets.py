"""Labels of rows that may have several each, or none: how an input writes them, and what a row says.

An input writes them as a list, as a column of 0 and 1 for each label, or as a text in which something separates them.
Lists and columns are known by themselves; a text is one label unless a separator is named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringtune.train.contract import UsageError
from ringtune.train.json_rows import shown

FLAG = "--label_separator"
LONGEST = 200  # characters of a label's name
_TRUTH = {"0": False, "1": True, "false": False, "true": True}


class NoLabels(Exception):
    """What a row holds where its labels should be is none; the words say what is wrong."""


@dataclass(frozen=True)
class LabelSets:
    """How the labels of a row are written."""

    columns: tuple[str, ...] = ()  # one for each label, which hold 0 or 1; (): all are in one column
    separator: str | None = None  # of labels in a text; None: they are a list

    def read(self, values: Mapping[str, Any], label: str, declared: Sequence[str] = ()) -> str | None:
        """Return the labels of a row as JSON for `names_of`, None where they are missing. **Pure.**

        values: by column. label: the one column's name. declared: names of labels that are written as numbers.
        """
        value = None if self.columns else values.get(label)
        if not self.columns and (value is None or (isinstance(value, float) and math.isnan(value))):
            return None
        try:
            if self.columns:
                names = [name for name in self.columns if _is_set(values.get(name), name)]
            elif self.separator is None:
                names = _of_list(value, label, declared)
            else:
                names = _of_text(value, label, self.separator)
        except NoLabels as error:
            return json.dumps(str(error))
        return json.dumps(names)


def names_of(text: str | None) -> list[str] | str | None:
    """Return the names that `LabelSets.read` found in a row, or what is wrong with it in words, or None. **Pure.**"""
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return f"the label {shown(text)} is one text, not a list"
    is_list = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if is_list or found is None else str(found)


def _is_set(value: Any, column: str) -> bool:
    """Return what a column of 0 and 1 holds. Raises NoLabels for anything else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise NoLabels(f"there is no value in column {column[:40]!r}")
    known = str(value).strip().lower() if isinstance(value, (str, int, float)) else ""
    if known.removesuffix(".0") not in _TRUTH:  # pandas writes whole numbers as decimals where a column had gaps
        raise NoLabels(f"column {column[:40]!r} holds {shown(value)}, not 0 or 1")
    return _TRUTH[known.removesuffix(".0")]


def _of_list(value: Any, column: str, declared: Sequence[str]) -> list[str]:
    if not isinstance(value, list):
        raise NoLabels(f"column {column[:40]!r} holds {shown(value)}, not a list of labels")
    names = []
    for each in value:
        if isinstance(each, bool) or not isinstance(each, (str, int)):
            raise NoLabels(f"the list in column {column[:40]!r} holds {shown(each)}, neither a text nor a whole number")
        if declared and isinstance(each, int) and not 0 <= each < len(declared):
            raise NoLabels(f"the list in column {column[:40]!r} holds {each}; its labels are 0 to {len(declared) - 1}")
        names.append(declared[each] if declared and isinstance(each, int) else _name(str(each), column))
    return names


def _of_text(value: Any, column: str, separator: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise NoLabels(f"column {column[:40]!r} holds {shown(value)}, not a text of labels")
    text = str(value)
    return [_name(part, column) for part in text.split(separator)] if text.strip() else []


def _name(text: str, column: str) -> str:
    name = text.strip()
    if not name:
        raise NoLabels(f"an empty label stands in column {column[:40]!r}")
    if len(name) > LONGEST:
        raise NoLabels(f"a label in column {column[:40]!r} has {len(name)} characters, more than {LONGEST}")
    if any("\ud800" <= each <= "\udfff" for each in name):
        raise NoLabels(f"the label {shown(name)} in column {column[:40]!r} is not UTF-8")
    return name


def choose(
    names: Sequence[str], lists: frozenset[str], where: str, *, asked: str, separator: str | None
) -> LabelSets | None:
    """Return how labels are written, None for one label a row. **Pure.**

    names, lists: the columns of a table, and those of them that hold lists. where: the table, for messages. asked:
    ``--label_column_name``. Raises UsageError for a separator where nothing is to be separated.
    """
    columns = tuple(each if each in names else each.strip() for each in asked.split(","))
    if asked in names or len(columns) == 1:
        if asked in lists and separator is not None:
            raise UsageError(FLAG, f"{where}: column {asked[:40]!r} holds lists", todo="leave it out")
        return LabelSets(separator=separator) if asked in lists or separator is not None else None
    if separator is not None:
        raise UsageError(
            FLAG, f"--label_column_name names {len(columns)} columns", legal="one column of texts", todo="leave it out"
        )
    if not all(columns) or len(set(columns)) < len(columns):
        raise UsageError(
            "--label_column_name",
            f"{shown(asked)} names {len(set(filter(None, columns)))} columns in {len(columns)} places",
            legal="one column, or a column for each label, each once",
        )
    return LabelSets(columns=columns)
