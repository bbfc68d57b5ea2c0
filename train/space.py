"""The space of a search: for each setting the values that a trial may have. Pure; standard library only.

Written as a sweep is, ``NAME=VALUES``:

    learning_rate=1e-5..1e-3:log    a fraction, drawn evenly in its logarithm
    warmup_ratio=0.0..0.2           a fraction
    reinit_layers=0..4              a whole number; also with :log
    optim=adamw_torch,lamb          one of these
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ringtune.train import sweep
from ringtune.train.contract import UsageError

#: What a search cannot vary: the first two are what it is itself, the others what its scores mean.
NOT_SEARCHED = (
    "config",
    "seed",
    "do_eval",
    "metric_for_best_model",
    "greater_is_better",
    "validation_file",
    "max_eval_samples",
    "task",
    "task_name",
    "dataset_name",
    "dataset_config_name",
    "text_column_names",
    "label_column_name",
    "label_separator",
    "regression",
    "threshold",
    "mlm_probability",
    "whole_word_mask",
    "line_by_line",
)
LEGAL = "learning_rate=1e-5..1e-3:log, warmup_ratio=0.0..0.2, reinit_layers=0..4 or optim=adamw_torch,lamb"
_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(.*))?")
_WHOLE = re.compile(r"[+-]?\d+")
_DIGITS = 4  # of a drawn fraction: it is written into commands and tables


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both among them."""

    low: float
    high: float
    is_log: bool  # drawn evenly in the logarithm
    is_whole: bool

    def written(self, value: float) -> str:
        """Return a drawn value as a flag has it: a fraction with four digits, and never beyond an end."""
        if self.is_whole:
            return str(int(value))
        return repr(min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high))

    def read(self, text: str) -> float:
        """Return the value that a flag means."""
        return int(text) if self.is_whole else float(text)

    def ends(self) -> list[str]:
        """Return the values whose flags are checked before a search begins."""
        return [self.written(self.low), self.written(self.high)]

    @property
    def num_values(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.is_whole else math.inf


@dataclass(frozen=True)
class Choice:
    """One of several values, as written on a command line."""

    values: tuple[str, ...]

    def written(self, value: str) -> str:
        """Return a drawn value as a flag has it."""
        return value

    def read(self, text: str) -> str:
        """Return the value that a flag means."""
        return text

    def ends(self) -> list[str]:
        """Return all values: each is checked before a search begins."""
        return list(self.values)

    @property
    def num_values(self) -> float:
        """How many values there are."""
        return len(self.values)


Space = Mapping[str, Range | Choice]
"""Setting → its values."""


def parse(words: Sequence[str], types: Mapping[str, object]) -> dict[str, Range | Choice]:
    """Return the space that words say. **Pure.** Raises UsageError for anything else.

    types: of the settings, by name, as their dataclass has them.
    """
    space: dict[str, Range | Choice] = {}
    for name, text in sweep.split(words, LEGAL).items():
        if name in NOT_SEARCHED:
            why = "it is what a search draws by" if name == "seed" else "it changes what the scores mean"
            raise UsageError(
                "--sweep",
                f"{name} cannot be searched over: {why}",
                legal="settings of the training",
                todo="search first, then sweep over seeds without --search" if name == "seed" else "",
            )
        found = _RANGE.fullmatch(text)
        space[name] = _range(name, text, found, str(types.get(name, ""))) if found else _choice(name, text)
    if not space:
        raise UsageError("--search", "there is nothing to search over", legal=f"--sweep {LEGAL}")
    return space


def _choice(name: str, text: str) -> Choice:
    values = text.split(",")
    if not all(values) or len(set(values)) < len(values):
        raise UsageError("--sweep", f"'{name}={text}' has an empty or a repeated value", legal=LEGAL)
    if len(values) == 1:
        raise UsageError(
            "--sweep", f"'{name}={text}' is one value, not a space", legal=LEGAL, todo=f"or use the flag --{name}"
        )
    return Choice(tuple(values))


def _range(name: str, text: str, found: re.Match[str], type_: str) -> Range:
    word = f"'{name}={text}'"
    ends, scale = (found[1], found[2]), found[3]
    is_whole = all(_WHOLE.fullmatch(each) for each in ends)
    if is_whole and "float" in type_ and "int" not in type_:
        raise UsageError(
            "--sweep",
            f"{word}: whole numbers or fractions?",
            legal=f"{name}={ends[0]}.0..{ends[1]}.0 for fractions, {name}={','.join(ends)} for these two",
        )
    low, high = (float(each) for each in ends)
    if not math.isfinite(low) or not math.isfinite(high) or low >= high:
        raise UsageError("--sweep", f"{word} holds no numbers", legal="LOW..HIGH, the lower one first")
    if scale not in (None, "log"):
        raise UsageError("--sweep", f"{word}: {scale!r} is no scale", legal="log, or nothing for an even one")
    if scale == "log" and low <= 0:
        raise UsageError("--sweep", f"{word}: {ends[0]} has no logarithm", legal="with :log, numbers above 0")
    if is_whole:
        return Range(int(ends[0]), int(ends[1]), is_log=scale == "log", is_whole=True)
    return Range(low, high, is_log=scale == "log", is_whole=False)


def to_check(space: Space) -> Iterator[dict[str, str]]:
    """Give the settings whose flags are checked before a search begins. **Pure.**

    The first values together, then each other value or end of a range with the first values of the rest.
    """
    first = {name: each.ends()[0] for name, each in space.items()}
    yield first
    for name, each in space.items():
        for value in each.ends()[1:]:
            yield {**first, name: value}


def num_combinations(space: Space) -> float:
    """Return how many different trials there are; infinite if any setting is a fraction. **Pure.**"""
    return math.prod(each.num_values for each in space.values())


def shown(settings: Mapping[str, str]) -> str:
    """Return settings for people: ``learning_rate=3e-05, optim=lamb``. **Pure.**"""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
