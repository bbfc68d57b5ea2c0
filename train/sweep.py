"""Several runs from one description: every combination of the values that are swept over."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ringtune.train.contract import UsageError

Axes = Mapping[str, Sequence[str]]
"""Setting → its values, as written on a command line of ringtune-train."""

MOST_RUNS = 10_000  # how many tasks an array may have is the cluster's to say: MaxArraySize, by default 1001
MOST_CHECKED = 200  # checking the flags of a run takes 30 ms
NOT_SWEPT = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint")
_LEGAL = "--sweep learning_rate=1e-5,2e-5 or --sweep seed=1..5"


def split(words: Sequence[str], legal: str = _LEGAL) -> dict[str, str]:
    """Return the text behind each name of ``name=text``. **Pure.** Raises UsageError for anything else.

    legal: for the message.
    """
    texts: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name or not text:
            raise UsageError("--sweep", f"{word!r} is not understood", legal=legal)
        if name in texts:
            raise UsageError("--sweep", f"{name} is given twice", legal="one list of values each")
        if name in NOT_SWEPT:
            raise UsageError("--sweep", f"{name} cannot be swept over", legal="each run gets a folder of its own")
        texts[name] = text
    return texts


def parse(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the axes of ``name=a,b,c`` and ``name=1..5``. **Pure.** Raises UsageError for anything else."""
    axes: dict[str, list[str]] = {}
    for name, text in split(words).items():
        span = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text)
        if span is None and re.fullmatch(r"[-+.\deE]*\d\.\.[-+]?\d[-+.\deE]*(:.*)?", text):
            raise UsageError(
                "--sweep", f"'{name}={text}' is a range of fractions", legal=_LEGAL, todo="--search optuna takes ranges"
            )
        values = [str(n) for n in _range(int(span[1]), int(span[2]))] if span else text.split(",")
        if not all(values) or not values or len(set(values)) < len(values):
            what = "no" if not values else "an empty or a repeated"
            raise UsageError("--sweep", f"'{name}={text}' has {what} value", legal=_LEGAL)
        axes[name] = values
    _refuse_many(math.prod(map(len, axes.values())))
    names = [folder_name(settings) for settings in expand(axes)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            "--sweep", f"two runs would share the folder {twice}", legal="values that differ in letters and digits"
        )
    return axes


def _range(first: int, last: int) -> range:
    _refuse_many(last - first + 1)
    return range(first, last + 1)


def _refuse_many(num_runs: int) -> None:
    if num_runs > MOST_RUNS:
        raise UsageError("--sweep", f"{num_runs} runs", legal=f"at most {MOST_RUNS}", todo="sweep in parts")


def expand(axes: Axes) -> list[dict[str, str]]:
    """Return the settings of every run, the last axis fastest; one run without settings if no axis. **Pure.**"""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def to_check(axes: Axes) -> list[dict[str, str]]:
    """Return the settings whose flags are checked before a sweep is submitted. **Pure.**

    Up to MOST_CHECKED runs: all of them. Of more: each value once, together with the first values of the other axes;
    of an axis with more values than MOST_CHECKED, the first and the last.
    """
    everything = expand(axes)
    if len(everything) <= MOST_CHECKED:
        return everything
    chosen = {name: [*values[1:MOST_CHECKED], *values[MOST_CHECKED:][-1:]] for name, values in axes.items()}
    return [everything[0], *({**everything[0], name: value} for name, values in chosen.items() for value in values)]


def spans(tasks: Sequence[int]) -> str:
    """Return numbers as sbatch's --array takes them: ``0-2,5`` for 0, 1, 2 and 5. **Pure.**"""
    result: list[list[int]] = []
    for task in sorted(tasks):
        if result and task == result[-1][-1] + 1:
            result[-1][1:] = [task]
        else:
            result.append([task])
    return ",".join("-".join(map(str, each)) for each in result)


def folder_name(settings: Mapping[str, str]) -> str:
    """Return the name of a run's folder, such as ``learning_rate=1e-5,seed=1``; "" without settings. **Pure.**"""
    return ",".join(f"{name}={re.sub(r'[^A-Za-z0-9._+-]', '_', value)}" for name, value in settings.items())


def flags(settings: Mapping[str, str]) -> list[str]:
    """Return the settings as arguments of ringtune-train. **Pure.**"""
    return [f"--{name}={value}" for name, value in settings.items()]
