"""Scores by slice: of the rows that have the same value in a column, such as a language or a group of people.

The gap of a score is the difference between its highest and its lowest value over the slices of a column; slices where
the score is not defined do not count for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ringtune.train import gap
from ringtune.train.columns import shown_name
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, FINISHED_FILE, UsageError

PREFIX = "slice/"  # of the columns in the reader's rows
MOST_VALUES = 100  # of a column
NO_VALUE = "(none)"
_SHOWN = 8  # slices in a line

Score = Callable[[np.ndarray], Mapping[str, float]]
"""From the numbers of some rows to their scores and ``num_rows``."""


@dataclass(frozen=True)
class SliceColumn:
    """The values of a column: of row i ``values[codes[i]]``."""

    name: str
    values: tuple[str, ...]  # in the order of the alphabet, NO_VALUE at the end
    codes: np.ndarray  # int32 [num_rows]

    def rows(self) -> dict[str, np.ndarray]:
        """Return the numbers of the rows that have each value."""
        return {value: np.flatnonzero(self.codes == code) for code, value in enumerate(self.values)}


@dataclass(frozen=True)
class ColumnScores:
    """The scores of the slices of one column."""

    column: str  # with the end of the split's scores, such as _mm, where there are several
    scores: Mapping[str, Mapping[str, float]]  # by value of the column; with num_rows

    def gaps(self) -> dict[str, float]:
        """Return the gap of each score that two slices or more have."""
        names = dict.fromkeys(name for each in self.scores.values() for name in each if name != "num_rows")
        found = {}
        for name in names:
            values = (each.get(name, math.nan) for each in self.scores.values())  # some slices may lack a score
            defined = [value for value in values if value == value]
            if len(defined) > 1:
                found[name] = max(defined) - min(defined)
        return found

    def line(self, score: str) -> str:
        """Return one score of each slice, lowest first, and its gap, for a person."""
        numbers = {value: each.get(score, math.nan) for value, each in self.scores.items()}
        defined = {value: each for value, each in self.scores.items() if numbers[value] == numbers[value]}
        in_order = sorted(defined, key=lambda value: defined[value][score])
        shown = [f"{value} {defined[value][score]:.4f} ({defined[value]['num_rows']} rows)" for value in in_order]
        if len(shown) > _SHOWN:
            shown = [*shown[: _SHOWN // 2], "...", *shown[-_SHOWN // 2 :]]
        width = self.gaps().get(score)
        return f"{score} by {self.column}: {', '.join(shown)}" + (f"; gap {width:.4f}" if width is not None else "")

    def as_json(self) -> dict[str, Any]:
        """Return scores and gaps for a file; a score that is not defined is null."""
        scores = {value: defined_only(each) for value, each in self.scores.items()}
        return {"column": self.column, "scores": scores, "gaps": self.gaps()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ColumnScores:
        """Return what `as_json` gave."""
        scores = {
            value: {name: math.nan if number is None else number for name, number in each.items()}
            for value, each in content["scores"].items()
        }
        return cls(content["column"], scores)


def defined_only(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores with None for NaN, which JSON does not have. **Pure.**"""
    return {name: None if value != value else value for name, value in scores.items()}


def by_column(columns: Iterable[SliceColumn], score: Score, end: str = "") -> list[ColumnScores]:
    """Return the scores of the slices of each column; a slice without a row that can be scored is left out.

    end: for the columns' names.
    """
    found = []
    for column in columns:
        scores = {value: score(rows) for value, rows in column.rows().items()}
        found.append(ColumnScores(column.name + end, {value: each for value, each in scores.items() if each}))
    return found


# Columns of the rows


def columns_of(batches: Iterable[pa.RecordBatch], where: str) -> list[SliceColumn]:
    """Return the slice columns of the reader's rows. Raises UsageError for a column of too many values."""
    narrow = [each.select([name for name in each.schema.names if name.startswith(PREFIX)]) for each in batches]
    table = pa.Table.from_batches(narrow)
    return [_column(name.removeprefix(PREFIX), table.column(name), where) for name in table.schema.names]


def _column(name: str, column: pa.ChunkedArray, where: str) -> SliceColumn:
    texts = [NO_VALUE if each is None else each for each in column.to_pylist()]
    values = sorted(set(texts), key=lambda each: (each == NO_VALUE, each))
    if len(values) > MOST_VALUES:
        raise UsageError(
            f"--slice_by {name}",
            f"it has {len(values)} different values in {where}",
            legal=f"at most {MOST_VALUES}",
            todo="name a column of fewer groups",
        )
    numbers = {value: number for number, value in enumerate(values)}
    return SliceColumn(name, tuple(values), np.fromiter((numbers[each] for each in texts), np.int32, count=len(texts)))


def to_bytes(columns: Sequence[SliceColumn]) -> bytes:
    """Return slice columns for the cache."""
    return json.dumps([[each.name, each.values, each.codes.tolist()] for each in columns]).encode()


def from_bytes(content: bytes) -> list[SliceColumn]:
    """Return what `to_bytes` was given."""
    return [
        SliceColumn(name, tuple(values), np.array(codes, dtype=np.int32)) for name, values, codes in json.loads(content)
    ]


# The bound


def require_comparable(columns: Mapping[str, Sequence[SliceColumn]], max_gap: str | None) -> None:
    """Raise UsageError for a bound and rows that cannot have a gap. **Pure.**

    columns: of each split of validation rows. max_gap: the flag.
    """
    if not gap.bounds(max_gap):
        return
    if not columns:
        raise UsageError("--max_gap", "there are no validation rows to compare slices of", legal="--validation_file")
    for each in (column for split in columns.values() for column in split):
        if len(each.values) < 2:
            raise UsageError(
                f"--max_gap {max_gap}",
                f"all validation rows have the same value of {shown_name(each.name)}: {', '.join(each.values)}",
                legal="--slice_by with columns of two values or more",
            )


def judge(found: Sequence[ColumnScores], max_gap: str | None, report: Callable[[str], None]) -> int:
    """Report each gap that exceeds its bound, or that is not known, and return the exit code: EXIT_FAILED if there is
    one. max_gap: the flag."""
    limits = gap.bounds(max_gap)
    wide = [_failure(each, name, limit) for each in found for name, limit in limits.items()]
    if limits and not found:
        wide.append(f"--max_gap {max_gap} cannot be judged: there are no slices")
    for line in filter(None, wide):
        report(line)
    return EXIT_FAILED if any(wide) else EXIT_FINISHED


def _failure(found: ColumnScores, score: str, limit: float) -> str:
    """Return why a score of a column's slices is not within its bound, "" if it is. **Pure.**"""
    width = found.gaps().get(score)
    if width is not None and width <= limit:
        return ""
    if width is not None and width > limit:
        return f"--max_gap {score}={limit:g} is exceeded: {found.line(score)}"
    values = [each.get(score, math.nan) for each in found.scores.values()]
    defined = sum(value == value for value in values)
    why = "of them not all are finite" if width is not None else "a gap is between two"
    numbers = f"it is defined in {defined} of {len(values)} slices of {shown_name(found.column)}"
    return f"--max_gap {score}={limit:g} cannot be judged: {numbers}, and {why}"


def judge_finished(folder: Path, max_gap: str | None, report: Callable[[str], None]) -> int:
    """Return the exit code of a run that has finished in a folder, as `judge` does. Raises UsageError if the gaps of
    its model are not known."""
    if not max_gap:
        return EXIT_FINISHED
    found = json.loads((folder / FINISHED_FILE).read_bytes()).get("slices")
    if not found:
        raise UsageError(
            "--max_gap",
            f"the run in {folder} finished without it",
            legal="a bound that is set before a run ends",
            todo="ringtune-predict --slice_by shows the gaps of its model",
        )
    return judge([ColumnScores.from_json(each) for each in found], max_gap, report)
