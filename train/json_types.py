"""Whether a value of a JSON file is of the type that an annotation names, and how people call that type.

Types that JSON does not have are not judged: whoever uses the value has to.
"""

from __future__ import annotations

import types
import typing
from typing import Any

_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", dict: "an object", list: "a list"}
_PLURALS = {bool: "true and false", int: "numbers", float: "numbers", str: "texts", dict: "objects", list: "lists"}


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type; null is of every one: it means that nothing is set. **Pure.**

    A number is whole or not: annotations are looser there than what they annotate.
    """
    if value is None:
        return True
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts if part is not types.NoneType)
    if origin is typing.Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is list:
        # A set is what such a list has become in memory.
        return isinstance(value, list | tuple | set) and all(_is_given(each, parts[0]) for each in value)
    if origin is dict or kind is dict:
        return isinstance(value, dict) and all(_is_given(each, parts[1]) for each in value.values() if parts)
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (bool, str) else True


def _is_given(value: Any, kind: Any) -> bool:
    return value is not None and fits(value, kind)


def described(kind: Any) -> str:
    """Return a type in words: ``a list of texts or a text``; "" for one that JSON does not have. **Pure.**"""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(sorted(filter(None, set(map(described, parts)))))  # Python keeps no order of them
    if origin is typing.Literal:
        return " or ".join(map(str, parts))
    if origin is list:
        return f"a list of {_PLURALS.get(parts[0], 'values')}"
    return _WORDS.get(origin or kind, "")
