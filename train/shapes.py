"""What the columns of a row may be, known by their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Texts and a label; a list of words and one of tags; a text and a list of entities.
TEXT, WORDS, SPANS = "text", "words", "spans"
#: A context and the choices that may follow it.
CHOICES = "choices"


def shape_of(value: Any) -> str:
    """Return what a value of JSON may be: WORDS, a list of texts or numbers, or SPANS, one of entities. **Pure.**

    "" for anything else. An empty list may be either: "".
    """
    if not isinstance(value, list) or not value:
        return ""
    first = value[0]
    if isinstance(first, (str, int)):
        return WORDS
    is_span = isinstance(first, Mapping) and {"start", "end"} <= set(first)
    return SPANS if is_span or (isinstance(first, list) and len(first) == 3) else ""
