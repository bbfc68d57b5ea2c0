"""Settings under ringtune's names and spellings, made of what a user gave in Hugging Face's."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping

from ringtune.train.arguments import FLAGS_ONLY, Source, Value
from ringtune.train.contract import UsageError, nearest
from ringtune.train.foreign_flag import Fate, Flag
from ringtune.train.huggingface import NULL_BY_DEFAULT

TRUE, FALSE = ("true", "yes", "on", "t", "y", "1"), ("false", "no", "off", "f", "n", "0")

ALIASES = {"resume_from_checkpoint": {"true": "latest", "false": "null"}, "lr_scheduler_kwargs": {"{}": "null"}}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The names that a command knows."""

    fields: Mapping[str, dataclasses.Field]  # its settings
    foreign: Mapping[str, Flag]  # what becomes of other flags, and what to know of its own
    joined: tuple[str, ...] = ()  # those of its settings whose values are joined by commas

    def name(self, given: str, value: Value) -> tuple[str, Value]:
        """Return the name of a setting or a flag of Hugging Face, and its value: ``--no_bf16`` is bf16 false. **Pure.**

        Raises UsageError for ``--no_bf16 true``.
        """
        bare = given.removeprefix("no_")
        if given not in self.foreign and bare != given and self._is_switch(bare):
            if value is not None:
                raise UsageError(f"--{given}", f"it takes no value, and has {value}", todo=f"--{bare} true or false")
            given, value = bare, "false"
        flag = self.foreign.get(given)
        return (flag.instead if flag is not None and flag.fate is Fate.RENAMED else given), value

    def _is_switch(self, name: str) -> bool:
        return "bool" in str(self.fields[name].type) if name in self.fields else name in self.foreign

    def unknown(self, where: str, name: str, what: str) -> UsageError:
        """Return the error for a name that is not known, with the nearest one that is. **Pure.**"""
        return UsageError(
            where, what, legal=nearest(name, {*self.fields, *FLAGS_ONLY, *self.foreign}), todo="see --help"
        )


def settle(words: Vocabulary, source: Source) -> dict[str, Value]:
    """Return the settings of a source under the names that the command knows, its own spelt as it takes them. **Pure.**

    Raises UsageError for names that are unknown, for a setting under two names, and for values that cannot be.
    """
    result: dict[str, Value] = {}
    for given, text in source.settings.items():
        where = source.where(given)
        name, value = words.name(given, text)
        if name in words.fields:
            if value == "null" and name in NULL_BY_DEFAULT:
                continue
            value = spell(words, name, value, where)
        elif name not in words.foreign:
            raise words.unknown(where, name, "unknown key" if source.file else "there is no such flag")
        if result.setdefault(name, value) != value:
            raise UsageError(where, f"{value} here, and {result[name]} under another name", legal="one of them")
    return result


def spell(words: Vocabulary, name: str, value: Value, where: str) -> str:
    """Return the value of a setting as the parser takes it. **Pure.** Raises UsageError."""
    kind = str(words.fields[name].type)
    if name == "report_to" and value is not None:
        value = _reports(value)
    if value is None:
        value = "true" if "bool" in kind else None
    if isinstance(value, dict) and kind.startswith("dict"):
        value = json.dumps(value, default=str)
    if not isinstance(value, str):
        raise _not_one(words, name, value, where)
    _refuse_odd(name, kind, value)
    lower = value.lower()
    if "bool" in kind:
        return "true" if lower in TRUE else "false" if lower in FALSE else value
    if kind.startswith("Literal"):
        return _choose(kind, value, where, words.foreign.get(name))
    value = ALIASES.get(name, {}).get(lower, value)
    if "int" in kind.split(" | "):
        return _whole(value)
    return value


def _not_one(words: Vocabulary, name: str, value: Value, where: str) -> UsageError:
    """Return the error of several values, or none. **Pure.**"""
    has = f"{len(value)} values, {', '.join(list(value)[:4])}" if value else "no value"
    one = ",".join(value) if isinstance(value, list) and name in words.joined else ""
    legal = f"one text, its values joined by commas: {one[:120]}" if one else "one value"
    return UsageError(where, f"it has {has}", legal=legal)


def _refuse_odd(name: str, kind: str, value: str) -> None:
    """Raise UsageError for what no setting can be: a missing value, a number not finite, a NUL character. **Pure.**"""
    if value == "null" and "None" not in kind:
        raise UsageError(f"--{name}", "it is null", legal=f"a value of type {kind}", todo="give one or leave it out")
    if "\0" in value:
        raise UsageError(f"--{name}", f"{value!r} holds a NUL character", legal="text without one")
    number = _number(value) if "float" in kind else None
    if number is not None and not math.isfinite(number):
        raise UsageError(f"--{name}", f"{value} is not finite", legal="a finite number")


def _reports(value: Value) -> str:
    """Return where to report: one service, as transformers takes one or a list. **Pure.**"""
    services = [value] if isinstance(value, str) else list(value or [])
    names = [{"all": "tensorboard", "false": "none", "no": "none"}.get(each.lower(), each) for each in services]
    return next((each for each in names if each not in ("tensorboard", "none")), names[0] if names else "none")


def _choose(kind: str, value: str, where: str, flag: Flag | None) -> str:
    """Return the legal value that is meant, whatever its case; YAML reads ``no`` as false. **Pure.**"""
    legal = [each.strip("'\"") for each in kind[len("Literal[") : kind.index("]")].split(", ")]
    lower = "no" if value.lower() == "false" else value.lower()
    if lower in legal or ("None" in kind and lower == "null"):
        return lower
    why = flag.refused.get(lower, flag.refused.get("others", "")) if flag is not None else ""
    raise UsageError(where, f"{value} is not taken{': ' if why else ''}{why}", legal=", ".join(legal))


def _whole(value: str) -> str:
    """Return a whole number without a point or exponent: 1e3 and 1000.0 are 1000. **Pure.**"""
    number = _number(value)
    if number is None or value.lstrip("+-").isdigit() or not number.is_integer():
        return value  # the parser says what is wrong
    return str(int(number))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def judge(words: Vocabulary, given: Mapping[str, Value], where: Mapping[str, str], note: Callable[[str], None]) -> None:
    """Report the flags of Hugging Face that have no effect here, a line each. **Pure** but for ``note``.

    Raises UsageError for one that is refused, unless its value asks for what is done anyway.
    """
    for name, value in given.items():
        flag = words.foreign.get(name)
        if name in words.fields or flag is None:
            continue
        text = "true" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
        if text.lower() in flag.same or (flag.same_as and text == given.get(flag.same_as)):
            continue
        if flag.fate is Fate.UNUSED:
            note(f"{where[name]}: not used: {flag.reason}")
            continue
        shown = "" if name.endswith("token") else f"{text[:80]} is refused: "
        raise UsageError(where[name], shown + flag.reason, todo=flag.instead)
