"""Objects of JSON in which a key repeats: of its values only one can be read, so that the row is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


class Twice(dict):
    """An object with a key that stands twice in it, or in an object within it.

    It holds the last value of each, as Python's own reader does.
    """

    key: str = ""  # the first such key
    own: tuple[str, ...] = ()  # those of the object itself


def with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of pairs of key and value, a `Twice` if a key repeats; for ``object_pairs_hook``. **Pure.**"""
    found = dict(pairs)
    own: tuple[str, ...] = ()
    if len(found) < len(pairs):
        own = tuple(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    keys = own or _keys_within(found.values())
    if not keys:
        return found
    result = Twice(found)
    result.key, result.own = keys[0], own
    return result


def _keys_within(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the key that stands twice in the first object with one among values and the elements of lists, if any."""
    several = list(values)
    while several:
        kinds = set(map(type, several))
        if Twice in kinds:
            return (next(each.key for each in several if isinstance(each, Twice)),)
        several = [inner for each in several if isinstance(each, list) for inner in each] if list in kinds else []
    return ()
