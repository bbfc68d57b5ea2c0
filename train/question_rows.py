"""Rows of a question, a context and answers, in any format: what they are, and what is wrong with them.

Answers are ``{"text": ["a film"], "answer_start": [4]}`` or ``[{"text": "a film", "answer_start": 4}]``; the characters
of the context are counted from 0 as Python counts them. An empty list means that the context has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from ringtune.train.arrow_values import is_text, plain_type
from ringtune.train.columns import Columns
from ringtune.train.json_rows import Row, shown
from ringtune.train.shapes import ANSWER_NAMES, ANSWERS
from ringtune.train.texts import what_is_wrong_with

MOST_CHARACTERS = 1 << 24  # of a context: places in it are kept as float32, which is exact up to here
_ANSWERS = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
_TEXT, _START = ANSWER_NAMES
_ID, _IMPOSSIBLE = "id", "is_impossible"


class _Wrong(Exception):
    """What is wrong with a row, in words."""


def read(rows: Sequence[Row], columns: Columns) -> tuple[list[Row], dict[str, pa.Array]]:
    """Return rows of a question and a context, and the column ``label`` if the answers are asked for. **Pure.**

    label: of each row a list of text and start, null for a row without answers.
    """
    texts: list[Row] = []
    labels: list[list[dict[str, Any]] | None] = []
    for line, values, error in rows:
        found = None
        if error is None:
            try:
                found = _answers(values, columns)
            except _Wrong as wrong:
                error = _of_question(values) + str(wrong)
        texts.append((line, {name: values.get(name) for name in columns.text}, error))
        labels.append(found)
    return texts, {"label": pa.array(labels, _ANSWERS)} if columns.label is not None else {}


def columns_beside(schema: pa.Schema, columns: Columns) -> tuple[str, ...]:
    """Return the columns of a table that `read` takes beside those of texts and answers, if it has them. **Pure.**"""
    kinds = {_ID: lambda kind: is_text(kind) or pa.types.is_integer(kind), _IMPOSSIBLE: pa.types.is_boolean}
    return tuple(
        name
        for name, is_kind in kinds.items()
        if columns.form == ANSWERS and schema.names.count(name) == 1 and is_kind(plain_type(schema.field(name).type))
    )


def _of_question(values: Mapping[str, Any]) -> str:
    """Return which question it is by its id, for a message; "" if it has none."""
    return f"question {shown(values[_ID])}: " if isinstance(values.get(_ID), (str, int)) else ""


def _answers(values: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]] | None:
    context = values.get(columns.text[1])
    if not isinstance(context, str):
        return None  # the reader of texts says what is wrong
    if len(context) > MOST_CHARACTERS:
        raise _Wrong(f"the context has {len(context)} characters, more than {MOST_CHARACTERS}")
    name = columns.label
    if name is None or values.get(name) is None:
        return None
    pairs = _pairs(values[name], name)
    if pairs and values.get(_IMPOSSIBLE) is True:
        raise _Wrong(f"it has {_IMPOSSIBLE}, and answers in column {name[:40]!r}")
    return [_answer(text, start, context) for text, start in pairs]


def _pairs(value: Any, name: str) -> Sequence[tuple[Any, Any]]:
    """Return text and start of each answer, as they are written."""
    if isinstance(value, Mapping) and set(ANSWER_NAMES) <= set(value):
        texts, starts = value[_TEXT], value[_START]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise _Wrong(f"column {name[:40]!r} holds {shown(value)}: text and answer_start are no lists of one length")
        return list(zip(texts, starts, strict=True))
    is_list = isinstance(value, list) and all(
        isinstance(each, Mapping) and set(ANSWER_NAMES) <= set(each) for each in value
    )
    if not is_list:
        raise _Wrong(f"column {name[:40]!r} holds {shown(value)}, not answers: each needs text and answer_start")
    return [(each[_TEXT], each[_START]) for each in value]


def _answer(text: Any, start: Any, context: str) -> dict[str, Any]:
    if not isinstance(text, str) or not text.strip():
        raise _Wrong(f"the answer {shown(text)} is no text; a question without an answer has an empty list")
    wrong = what_is_wrong_with(text, _TEXT)
    if wrong is not None:
        raise _Wrong(wrong)
    if type(start) is not int:
        raise _Wrong(f"the answer {shown(text)} starts at {shown(start)}, not at a number of characters")
    if start < 0 or context[start : start + len(text)] != text:
        there = (
            f"where {shown(context[start : start + len(text)])} is" if 0 <= start < len(context) else "outside of it"
        )
        raise _Wrong(
            f"the answer {shown(text)} does not stand at character {start} of the context, {there}; "
            f"{_places(text, context)}"
        )
    return {"text": text, "start": start}


def _places(text: str, context: str) -> str:
    """Return where a text stands in a context, for a message."""
    first = context.find(text)
    if first < 0:
        return "it stands nowhere in it"
    return "it stands there several times" if context.find(text, first + 1) >= 0 else f"it stands at {first}"
