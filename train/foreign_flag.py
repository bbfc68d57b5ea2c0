"""What becomes of a flag that users bring from Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

#: Values of a flag that ask for nothing.
OFF = ("", "null", "none", "no", "false", "[]", "{}")
#: The same of a flag that is on by default.
ON = ("true", "null")


class Fate(Enum):
    """What becomes of a flag."""

    TAKEN = "taken"
    RENAMED = "renamed"
    UNUSED = "unused"
    REFUSED = "refused"


@dataclass(frozen=True)
class Flag:
    """A flag of Hugging Face. reason: why it is not used or refused; of a taken flag, what to know about it."""

    fate: Fate
    reason: str = ""
    instead: str = ""  # what to do, or the name under which it is taken
    same: tuple[str, ...] = OFF  # values that ask for what is done anyway
    same_as: str = ""  # a setting whose value it may have, too
    refused: Mapping[str, str] = field(
        default_factory=dict
    )  # of a taken flag: values, or others, and why they are refused


def taken(reason: str = "", **refused: str) -> Flag:
    """Return a flag that means the same under the same name, but for the values that are refused."""
    return Flag(Fate.TAKEN, reason, refused=refused)


def renamed(name: str) -> Flag:
    """Return a flag that means the same as a setting of another name."""
    return Flag(Fate.RENAMED, instead=name)


def unused(reason: str, *same: str) -> Flag:
    """Return a flag that is accepted with one line, because nothing depends on it here; without one for some values."""
    return Flag(Fate.UNUSED, reason, same=same or OFF)


def refused(reason: str, instead: str, *same: str, same_as: str = "") -> Flag:
    """Return a flag that is refused, but for the values that ask for what is done anyway."""
    return Flag(Fate.REFUSED, reason, instead, same or OFF, same_as)


def each(names: str, flag: Flag) -> dict[str, Flag]:
    """Return several flags that have the same fate."""
    return dict.fromkeys(names.split(), flag)
