"""Rows of a context with choices, in any format: what they are, and what is wrong with them.

Choices are in a column each, or in one list of texts. One that is null or blank is missing: it keeps its place, and can
never be chosen. A row has two others or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from ringtune.train.columns import Columns
from ringtune.train.json_rows import Row, shown
from ringtune.train.shapes import CHOICES
from ringtune.train.texts import what_is_wrong_with


class _Wrong(Exception):
    """What is wrong with a row, in words."""


def read(rows: Sequence[Row], columns: Columns) -> tuple[list[Row], dict[str, pa.Array]]:
    """Return rows with the texts before the choices, and the column ``choices``: a list of texts a row. **Pure.**

    A missing choice is null in its list; null instead of a list: the row cannot be used.
    """
    texts: list[Row] = []
    found: list[list[str | None] | None] = []
    for line, values, error in rows:
        several = None
        if error is None:
            try:
                several = _choices(values, columns)
            except _Wrong as wrong:
                error = str(wrong)
        texts.append((line, {name: values.get(name) for name in columns.contexts}, error))
        found.append(several)
    return texts, {CHOICES: pa.array(found, pa.list_(pa.string()))}


def _choices(values: Mapping[str, Any], columns: Columns) -> list[str | None]:
    several = [(name, values.get(name)) for name in columns.choices]
    if len(several) == 1:
        name, value = several[0]
        if not isinstance(value, list):
            raise _Wrong(f"column {name[:40]!r} holds {shown(value)}, not a list of choices")
        several = [(name, each) for each in value]
    found = [_text(value, name) for name, value in several]
    while found and found[-1] is None:
        found.pop()
    num_there = sum(each is not None for each in found)
    if num_there < 2:
        raise _Wrong(f"it has {num_there or 'no'} choice{'' if num_there else 's'}, and needs two or more")
    if columns.most_choices is not None and len(found) > columns.most_choices:
        raise _Wrong(f"it has {len(found)} choices, and the model takes {columns.most_choices} at most")
    return found


def _text(value: Any, name: str) -> str | None:
    """Return a choice, None for a missing one."""
    if value is None:
        return None
    wrong = what_is_wrong_with(value, name)
    if wrong:
        raise _Wrong(wrong)
    return value if value.strip() else None
