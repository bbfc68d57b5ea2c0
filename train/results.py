"""What the runs of a sweep brought: mean and deviation over seeds of every combination of the other settings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringtune.train import search, space, sweep, trial
from ringtune.train.contract import FINISHED_FILE, METRICS_FILE, UsageError, read_records

SEED = "seed"
PREFIX = "eval_"
COUNTS = ("eval_num_rows", "eval_num_rows_mm")  # of an evaluation; the second of MNLI's other validation rows


@dataclass(frozen=True)
class Row:
    """One combination of settings, over its seeds."""

    settings: Mapping[str, str]  # without the seed
    num_runs: int
    num_finished: int
    scores: Mapping[str, tuple[float, float]]  # name → mean, sample deviation over the runs that ended (0 for one)
    num_pruned: int = 0  # trials of a search that ended early; they are not among the finished


def collect(folder: Path, axes: sweep.Axes) -> list[Row]:
    """Return the rows of a sweep's folder, from the last evaluation of each finished run."""
    runs = {folder / sweep.folder_name(settings): settings for settings in sweep.expand(axes)}
    found = group([({**settings, **_drawn(run)}, scores_of_run(run)) for run, settings in runs.items()])
    if search.TRIAL not in axes:
        return found
    return [_judged(row, trial.outcome(run)) for row, run in zip(found, runs, strict=True)]


def _drawn(run: Path) -> Mapping[str, str]:
    """Return the settings of a trial of a search, nothing for another run."""
    found = trial.read(run)
    return found.settings if found is not None else {}


def _judged(row: Row, outcome: trial.Outcome | None) -> Row:
    """Return the row of one trial with whether it was pruned."""
    return replace(row, num_finished=0, num_pruned=1) if outcome is not None and outcome.pruned else row


def scores_of_run(folder: Path) -> dict[str, Any] | None:
    """Return the last evaluation of a run, {} if it had no validation rows, None if it has not finished.

    Raises UsageError for a score that is no number.
    """
    if not (folder / FINISHED_FILE).exists():
        return None
    path = folder / METRICS_FILE
    evaluations = [each for each in read_records(path) if each["event"] == "eval"] if path.exists() else []
    last = evaluations[-1] if evaluations else {}
    for name, value in last.items():
        if name.startswith(PREFIX) and not _is_score(value):
            raise UsageError(
                str(path),
                f"{name} of the last evaluation is {str(value)[:80]!r}",
                legal="a number, as the run wrote it",
                todo="correct that line or take it out",
            )
    return last


def _is_score(value: Any) -> bool:
    return value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 1024)


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
            if name.startswith(PREFIX) and name not in COUNTS
            if (values := [each[name] for each in finished if each.get(name) is not None])  # null: not defined
        }
        rows.append(Row(dict(key), len(members), len(finished), spreads))
    return rows


def _spread(values: Sequence[float]) -> tuple[float, float]:
    if not all(map(math.isfinite, values)):  # as a user's own score may be
        return statistics.fmean(values), math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def results_table(rows: Sequence[Row]) -> str:
    """Return the rows for people, ``mean ± deviation`` a score. **Pure.**"""
    settings = list(dict.fromkeys(name for row in rows for name in row.settings))
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    lines = [[*settings, "finished", *scores]]
    for row in rows:
        cells = [
            f"{row.scores[name][0]:.4f} ± {row.scores[name][1]:.4f}" if name in row.scores else "-" for name in scores
        ]
        ended = "pruned" if row.num_pruned else f"{row.num_finished} of {row.num_runs}"
        lines.append([*(row.settings.get(name, "-") for name in settings), ended, *cells])
    return aligned(lines)


def best_trial(folder: Path, axes: sweep.Axes) -> str:
    """Return which trial of a search is best so far, as a line; "" if none has trained to its end, or for a sweep."""
    runs = [folder / sweep.folder_name(settings) for settings in sweep.expand(axes)] if search.TRIAL in axes else []
    ended = [(found.cost, run, found) for run in runs if (found := trial.outcome(run)) is not None and not found.pruned]
    if not ended:
        return ""
    _, run, found = min(ended, key=lambda each: each[0])
    return f"best: {found.shown()}, {space.shown(_drawn(run))}: {run}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return cells as lines, the columns below each other. **Pure.**"""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
