"""What a sweep brought: mean and deviation over seeds of every combination of the other settings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringtune.slurm import sweep
from ringtune.slurm.record import SWEEP_FILE, Record
from ringtune.train.contract import SLURM_DIR, UsageError

SEED = "seed"
PREFIX = "eval_"


@dataclass(frozen=True)
class Row:
    """One combination of settings, over its seeds."""

    settings: Mapping[str, str]  # without the seed
    num_runs: int
    num_finished: int
    scores: Mapping[str, tuple[float, float]]  # name → mean, sample deviation over the finished runs (0 for one)


def collect(folder: Path) -> list[Row]:
    """Return the rows of a sweep, from the last evaluation of each finished run. UsageError if it is no sweep."""
    path = folder / SLURM_DIR / SWEEP_FILE
    try:
        axes = json.loads(path.read_text(encoding="utf-8"))["axes"]
    except (OSError, ValueError, KeyError):
        raise UsageError(
            str(folder),
            "it is no sweep",
            legal="a folder of ringtune-slurm submit --sweep",
            todo="see ringtune-slurm status",
        ) from None
    runs = []
    for settings in sweep.expand(axes):
        record = Record(folder / sweep.folder_name(settings))
        evaluations = [each for each in record.metrics() if each["event"] == "eval"]
        # A run without validation rows finishes without scores.
        runs.append((settings, None if record.finished() is None else ([{}, *evaluations])[-1]))
    return group(runs)


def group(runs: Sequence[tuple[Mapping[str, str], Mapping[str, float] | None]]) -> list[Row]:
    """Return one row for all runs that differ only in the seed; None is a run that has not finished. **Pure.**"""
    grouped: dict[tuple[tuple[str, str], ...], list[Mapping[str, float] | None]] = {}
    for settings, scores in runs:
        grouped.setdefault(tuple((name, value) for name, value in settings.items() if name != SEED), []).append(scores)
    rows = []
    for key, members in grouped.items():
        finished = [each for each in members if each is not None]
        names = dict.fromkeys(name for each in finished for name in each)
        spreads = {
            name.removeprefix(PREFIX): _spread([each[name] for each in finished if name in each])
            for name in names
            if name.startswith(PREFIX) and "num_rows" not in name
        }
        rows.append(Row(dict(key), len(members), len(finished), spreads))
    return rows


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def results_table(rows: Sequence[Row]) -> str:
    """Return the rows for people, ``mean ± deviation`` a score. **Pure.**"""
    settings = list(rows[0].settings)
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    lines = [[*settings, "finished", *scores]]
    for row in rows:
        cells = [
            f"{row.scores[name][0]:.4f} ± {row.scores[name][1]:.4f}" if name in row.scores else "-" for name in scores
        ]
        lines.append([*(row.settings[name] for name in settings), f"{row.num_finished} of {row.num_runs}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
