"""Which tasks of a job array are meant: sbatch's --array, ``0-3,7,8-12:2%4``."""

from __future__ import annotations

import re

from ringtune.train.contract import UsageError

_SPAN = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_ASKED = re.compile(r"\[?([\d,:-]*)\]?(%\d+)?\]?")


def numbers(spans: str) -> list[int]:
    """Return the numbers of ``0-2,5,8-12:2``, also those of SLURM's own answers. **Pure.**"""
    return [number for each in _SPAN.findall(spans) for number in _range(*each)]


def _range(first: str, last: str, step: str) -> range:
    return range(int(first), int(last or first) + 1, int(step or 1))


def parse(text: str, num_runs: int) -> tuple[list[int] | None, str]:
    """Return the tasks that an --array names, in order, None if it names none, and its limit, ``%4`` or "". **Pure.**

    num_runs: of the sweep. Raises UsageError for what is no array, or names a task that there is no run for.
    """
    match = _ASKED.fullmatch(text)
    spans = [_SPAN.fullmatch(span) for span in match[1].split(",")] if match and match[1] else []
    if match is None or not all(spans):
        raise UsageError("--array", f"{text!r} is not understood", legal="such as 0-3,7%2, or %2 for all runs")
    found: set[int] = set()
    for span in filter(None, spans):
        last = max(int(span[1]), int(span[2] or 0))
        if last >= num_runs:
            raise UsageError("--array", f"{text} names task {last} of {num_runs} runs", legal=f"0-{num_runs - 1}")
        found.update(_range(span[1], span[2], span[3]))
    if spans and not found:
        raise UsageError("--array", f"{text} counts backwards", legal="such as 0-3")
    return (sorted(found) if spans else None), match[2] or ""
