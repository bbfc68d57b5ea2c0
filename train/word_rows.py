"""Rows of words with tags, and of texts with entities, in any format: what they are, and what is wrong with them.

Words are a list of texts, tags a list as long as it. Entities are a list of ``{"start": 0, "end": 5, "label": "PER"}``
or ``[0, 5, "PER"]`` whose characters are counted from 0, ``end`` being the one behind the last.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from ringtune.train import words
from ringtune.train.arrow_values import is_list, is_text
from ringtune.train.columns import Columns
from ringtune.train.json_rows import Row, shown
from ringtune.train.shapes import ANSWER_NAMES, ANSWERS, SPANS, WORDS

_NAMES = ("start", "end", "label")
_BOUNDS, _TAGS = pa.list_(pa.int64()), pa.list_(pa.string())


class Wrong(Exception):
    """What is wrong with a row, in words."""


def shape_of_type(kind: pa.DataType) -> str:
    """Return what a column of an Arrow table may be, as `shapes.shape_of`. **Pure.**"""
    if pa.types.is_struct(kind):
        return ANSWERS if set(ANSWER_NAMES) <= {each.name for each in kind} else ""
    if not is_list(kind):
        return ""
    value = kind.value_type
    if pa.types.is_struct(value):
        names = {each.name for each in value}
        return ANSWERS if set(ANSWER_NAMES) <= names else SPANS if {"start", "end"} <= names else ""
    number = value.value_type if pa.types.is_dictionary(value) else value
    return WORDS if is_text(value) or pa.types.is_integer(number) else ""


def read(rows: Sequence[Row], columns: Columns) -> tuple[list[Row], dict[str, pa.Array]]:
    """Return rows with one text each in the text column, and what belongs to it. **Pure.**

    Beside the texts, a value a row: ``words``, where they stand in it (of a list of words); ``label``, a tag for each
    word, null for a row without; ``widened`` (of entities), how many were taken as whole words.
    """
    name = columns.text[0]
    texts: list[Row] = []
    found: dict[str, list[Any]] = {"words": [], "label": [], "widened": []}
    for line, values, error in rows:
        row: dict[str, Any] = {}
        if error is None:
            try:
                row = _words(values, columns) if columns.form == WORDS else _spans(values, columns)
            except Wrong as wrong:
                error = str(wrong)
        texts.append((line, {name: row.get("text")}, error))
        for each, several in found.items():
            several.append(row.get(each))
    if columns.form == WORDS:
        arrays = {"words": pa.array(found["words"], _BOUNDS)}
    else:
        arrays = {"widened": pa.array(found["widened"], pa.int32())} if columns.label else {}
    if columns.label is not None:
        arrays["label"] = pa.array(found["label"], _TAGS)
    return texts, arrays


def _words(values: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    name = columns.text[0]
    several = values.get(name)
    if several is None:
        raise Wrong(f"there are no words in column {name[:40]!r}")
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise Wrong(f"column {name[:40]!r} holds {shown(several)}, not a list of words")
    if not several:
        raise Wrong(f"the list of words in column {name[:40]!r} is empty")
    text, bounds = words.joined(several)
    row: dict[str, Any] = {"text": text, "words": [each for pair in bounds for each in pair]}
    if columns.label is not None:
        row["label"] = _tags(values.get(columns.label), columns.label, len(several))
    return row


def _tags(value: Any, name: str, num_words: int) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or any(each is None or isinstance(each, (list, dict, bytes)) for each in value):
        raise Wrong(f"column {name[:40]!r} holds {shown(value)}, not a list of tags")
    if len(value) != num_words:
        raise Wrong(f"there are {num_words} words and {len(value)} tags")
    tags = list(map(str, value))
    wrong = next(filter(_is_not_utf8, tags), None)
    if wrong is not None:  # two of them with a question mark each would be one
        raise Wrong(f"the tag {shown(wrong)} in column {name[:40]!r} is not UTF-8")
    return tags


def _is_not_utf8(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is not None


def _spans(values: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    text = values.get(columns.text[0])
    if not isinstance(text, str):
        return {"text": text}  # the reader of texts says what is wrong
    row: dict[str, Any] = {"text": text, "widened": 0}
    if columns.label is None:
        return row
    value = values.get(columns.label)
    if value is None:
        return row
    if not isinstance(value, list):
        raise Wrong(f"column {columns.label[:40]!r} holds {shown(value)}, not a list of entities")
    found = sorted((_span(each, len(text)) for each in value), key=lambda each: each[:2])
    for one, other in itertools.pairwise(found):
        if other[0] < one[1]:
            raise Wrong(f"entities overlap: {_shown(one)} and {_shown(other)}")
    row["label"], row["widened"] = _tags_of(text, found)
    return row


def _span(value: Any, num_characters: int) -> tuple[int, int, str]:
    """Return start, end and label of an entity."""
    if isinstance(value, Mapping) and all(name in value for name in _NAMES):
        value = [value[name] for name in _NAMES]
    is_span = isinstance(value, (list, tuple)) and len(value) == 3
    if not is_span or not all(type(each) is int for each in value[:2]) or not isinstance(value[2], str):
        raise Wrong(f"{shown(value)} is no entity: it needs start, end and label")
    start, end, label = value
    if not 0 <= start < end <= num_characters:
        raise Wrong(
            f"the entity {_shown((start, end, label))} is out of range: the text has {num_characters} characters"
        )
    if not label.strip() or _is_not_utf8(label):
        raise Wrong(f"the entity {start}:{end} has the label {shown(label)}")
    return start, end, label.strip()


def _shown(span: tuple[int, int, str]) -> str:
    return f"{span[0]}:{span[1]} ({span[2][:40]})"


def _tags_of(text: str, spans: Sequence[tuple[int, int, str]]) -> tuple[list[str], int]:
    """Return the IOB2 tag of each word of a text, and how many entities were widened to whole words.

    spans: sorted; none overlaps another, so that each begins at or behind the last word of the one before.
    """
    bounds = words.find(text)
    tags = ["O"] * len(bounds)
    widened = first = 0
    for start, end, label in spans:
        while first < len(bounds) and bounds[first][1] <= start:
            first += 1
        behind = first
        while behind < len(bounds) and bounds[behind][0] < end:
            behind += 1
        if behind == first:
            raise Wrong(f"there is no word in the entity {_shown((start, end, label))}")
        if tags[first] != "O":
            raise Wrong(f"two entities are in one word, {_shown((start, end, label))} being the second")
        tags[first:behind] = [f"B-{label}", *[f"I-{label}"] * (behind - first - 1)]
        spare = text[start:end]
        start, end = end - len(spare.lstrip()), start + len(spare.rstrip())
        widened += (bounds[first][0], bounds[behind - 1][1]) != (start, end)
        first = behind - 1  # the next one may begin in the last word
    return tags, widened
