"""An interval of steps, as a user writes it: ``A:B``."""

from __future__ import annotations

import re

from ringtune.train.contract import UsageError

LEGAL = "A:B with 1 <= A <= B, both of them steps of the run; in a YAML file in quotes, 'A:B'"


def steps(text: str | None, where: str) -> range:
    """Return the 1-based steps from A to B, both included; none for None. **Pure.** Raises UsageError."""
    if text is None:
        return range(0)
    found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
    if found is None:
        raise UsageError(where, f"{text!r} is no interval of steps", legal=LEGAL)
    first, last = int(found[1]), int(found[2])
    if first < 1:
        raise UsageError(where, f"{text}: steps are counted from 1", legal=LEGAL)
    if first > last:
        raise UsageError(where, f"{text} begins behind its end", legal=LEGAL)
    return range(first, last + 1)


def require_within(text: str | None, where: str, total_steps: int) -> None:
    """Raise UsageError for an interval that ends behind the run. **Pure.**"""
    if any(step > total_steps for step in steps(text, where)[-1:]):
        raise UsageError(where, f"{text} ends behind the run, which has {total_steps} steps", legal=LEGAL)
