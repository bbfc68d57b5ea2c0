"""What the columns of a row may be, known by their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Texts and a label; a list of words and one of tags; a text and a list of entities; a question, a context and answers;
#: a context and the choices that may follow it.
TEXT, WORDS, SPANS, ANSWERS, CHOICES = "text", "words", "spans", "answers", "choices"
#: What an answer needs: its text, and the character of the context at which it starts.
ANSWER_NAMES = ("text", "answer_start")


def shape_of(value: Any) -> str:
    """Return what a value of JSON may be: WORDS, a list of texts or numbers, SPANS, one of entities, ANSWERS. **Pure.**

    Answers are an object of lists or a list of objects. "" for anything else. An empty list may be either: "".
    """
    if isinstance(value, Mapping):
        return ANSWERS if set(ANSWER_NAMES) <= set(value) else ""
    if not isinstance(value, list) or not value:
        return ""
    first = value[0]
    if isinstance(first, Mapping) and set(ANSWER_NAMES) <= set(first):
        return ANSWERS
    if isinstance(first, (str, int)):
        return WORDS
    is_span = isinstance(first, Mapping) and {"start", "end"} <= set(first)
    return SPANS if is_span or (isinstance(first, list) and len(first) == 3) else ""
