"""What ringtune-launch tune found: as a table, as YAML for ringtune-train, and as a record for each kind of machine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.launch import environment
from ringtune.launch.choices import Choice, Space
from ringtune.launch.search import best_of
from ringtune.launch.steptimes import compare, is_alike, summarise
from ringtune.launch.trial import Measured
from ringtune.train.contract import UsageError, cache_folder

YAML_START = "# Found by ringtune-launch tune: "  # of what is written for --config

FOLDER = "tune"  # of the cache


@dataclass(frozen=True)
class Record:
    """A search that has ended."""

    machine: Mapping[str, Any]  # all that its result depends on
    date: str
    budget_s: float
    left_out: int  # choices, for want of time
    measured: tuple[Measured, ...]

    @property
    def best(self) -> Measured | None:
        """The fastest."""
        return best_of(self.measured)


def path_of(machine: Mapping[str, Any], cache: Path | None) -> Path:
    """Return where the record of a kind of machine lies."""
    key = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder(cache) / FOLDER / f"{key}.json"


def save(record: Record, path: Path) -> None:
    """Keep a record, in one rename: readers find the old or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = [
        {
            "choice": each.choice.as_dict(),
            "times": [[*key, seconds] for key, seconds in each.times.items()],
            "failure": each.failure,
            "peak_gib": each.peak_gib,
        }
        for each in record.measured
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({**vars(record), "measured": measured}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load(machine: Mapping[str, Any], path: Path) -> Record | None:
    """Return the record of a kind of machine; None if there is none, or it is damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(path.read_bytes())
        measured = tuple(
            Measured(
                Choice(**each["choice"]),
                {(launch, step): float(seconds) for launch, step, seconds in each["times"]},
                failure=str(each["failure"]),
                peak_gib=float(each["peak_gib"]),
            )
            for each in content.pop("measured")
        )
        record = Record(**content, measured=measured)
        if record.machine == machine and record.best is not None:
            return record
    return None


def table(measured: Sequence[Measured], batch: int) -> str:
    """Return what is known as a table, the fastest first, those that failed last. **Pure.** batch: rows per step."""
    best = best_of(measured)
    lines = [f"{'ms/step':>8}  {'middle half':>15}  {'rows/s':>8}  {'times the best':>20}  choice"]
    known = sorted((each for each in measured if each.times), key=lambda each: summarise(each.times).median)
    for each in sorted(known, key=lambda each: each is not best):
        assert best is not None
        about = summarise(each.times)
        spread = f"{about.quarter * 1e3:.1f}-{about.three_quarters * 1e3:.1f}"
        lines.append(
            f"{about.median * 1e3:8.1f}  {spread:>15}  {batch / about.median:8.1f}  {_against(each, best):>20}"
            f"  {each.choice}{_remark(each, best)}"
        )
    lines += [f"{'failed':>8}  {'':49}  {each.choice}: {each.failure}" for each in measured if not each.times]
    return "\n".join(lines)


def _against(each: Measured, best: Measured) -> str:
    if each is best:
        return "1.00"
    ratio, low, high = compare(each.times, best.times)
    return f"{ratio:.2f} ({low:.2f}-{high:.2f})"


def _remark(each: Measured, best: Measured) -> str:
    if each is best:
        return "  <- best"
    return "  (not distinguishable from the best)" if is_alike(each.times, best.times) else ""


def horovod_variables(choice: Choice) -> dict[str, str]:
    """Return Horovod's variables of a choice. **Pure.**"""
    return environment.horovod_settings({"fusion_threshold_mb": choice.fusion_mb, "cycle_time_ms": choice.cycle_ms})


def require_output(path: Path) -> None:
    """Raise UsageError if the file for ``ringtune-train --config`` cannot be written, or would replace another one than
    an earlier one of its kind. Changes nothing."""
    where = f"--output {path}"
    if path.is_dir():
        raise UsageError(where, "it is a folder", legal="a file to write", todo="name a file in it")
    if not path.parent.is_dir():
        raise UsageError(where, "its folder does not exist", legal="a file in a folder that does")
    if not path.exists():
        return
    try:
        with path.open("rb") as stream:
            start = stream.read(len(YAML_START)) if path.is_file() else b"?"
    except OSError as error:
        raise UsageError(where, str(error.strerror), legal="a file one may write") from None
    if start not in (b"", YAML_START.encode()):
        raise UsageError(where, "it exists", legal="a new file, or one that tune wrote", todo="name another")


def yaml_text(choice: Choice, space: Space, launch: Sequence[str], why: str) -> str:
    """Return the file for ``ringtune-train --config``, with how to launch it in its comments. **Pure.**

    launch: the command of ringtune-launch run up to ``--``. why: what was measured, in one line.
    """
    import yaml

    variables = " ".join(f"{name}={value}" for name, value in horovod_variables(choice).items())
    lines = [
        f"{YAML_START}{why}",
        f"# Start with: {shlex.join(launch)} -- ringtune-train FLAGS --config THIS_FILE",
        f"# Environment for other launchers: {variables or 'none'}",
    ]
    settings = {"global_batch_size": space.batch, **choice.train_settings(space.settings)}
    return "\n".join(lines) + "\n" + yaml.safe_dump(settings, sort_keys=False)
