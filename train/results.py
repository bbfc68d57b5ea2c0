"""What the runs of a sweep brought: mean and deviation over seeds of every combination of the other settings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import sweep
from ringtune.train.contract import FINISHED_FILE, METRICS_FILE, read_records

SEED = "seed"
PREFIX = "eval_"


@dataclass(frozen=True)
class Row:
    """One combination of settings, over its seeds."""

    settings: Mapping[str, str]  # without the seed
    num_runs: int
    num_finished: int
    scores: Mapping[str, tuple[float, float]]  # name → mean, sample deviation over the finished runs (0 for one)


def collect(folder: Path, axes: sweep.Axes) -> list[Row]:
    """Return the rows of a sweep's folder, from the last evaluation of each finished run."""
    runs = sweep.expand(axes)
    return group([(settings, scores_of_run(folder / sweep.folder_name(settings))) for settings in runs])


def scores_of_run(folder: Path) -> dict[str, Any] | None:
    """Return the last evaluation of a run, {} if it had no validation rows, None if it has not finished."""
    if not (folder / FINISHED_FILE).exists():
        return None
    path = folder / METRICS_FILE
    evaluations = [each for each in read_records(path) if each["event"] == "eval"] if path.exists() else []
    return evaluations[-1] if evaluations else {}


def group(runs: Sequence[tuple[Mapping[str, str], Mapping[str, Any] | None]]) -> list[Row]:
    """Return one row for all runs that differ only in the seed; None is a run that has not finished. **Pure.**"""
    grouped: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any] | None]] = {}
    for settings, scores in runs:
        grouped.setdefault(tuple((name, value) for name, value in settings.items() if name != SEED), []).append(scores)
    rows = []
    for key, members in grouped.items():
        finished = [each for each in members if each is not None]
        names = dict.fromkeys(name for each in finished for name in each)
        spreads = {
            name.removeprefix(PREFIX): _spread(values)
            for name in names
            if name.startswith(PREFIX) and "num_rows" not in name
            if (values := [each[name] for each in finished if each.get(name) is not None])  # null: not defined
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
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return cells as lines, the columns below each other. **Pure.**"""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
