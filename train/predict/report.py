"""What a finished prediction reports: rows with an error, scores, and where the time went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ringtune.train import disk, measures, slices
from ringtune.train.columns import Columns
from ringtune.train.measures import Measure
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.parts import Spool, error_rows, read_part
from ringtune.train.predict.predictor import has_labels, scored_rows, scored_slices
from ringtune.train.predict.workers import WorkerStats
from ringtune.train.scores import Scored, Scores
from ringtune.train.slices import ColumnScores
from ringtune.train.source import Place, Source
from ringtune.train.task import Task


@dataclass(frozen=True)
class Parts:
    """The predictions of all rows, in parts on disk."""

    paths: Sequence[Path]
    spool: Path
    files: Sequence[Place]  # of the input, for messages
    num_rows: int

    def scores(self, task: Task, named: Mapping[str, Measure]) -> Scores | None:
        """Return the scores of the rows with a label, None if there are none. named: of `measures.choose`."""
        parts = _ScoredParts(self.paths, task)
        if not self.has_labels or next(iter(parts), None) is None:
            return None
        found = task.scores(parts)
        if found is None or not named:
            return found
        return replace(found, values={**found.values, **measures.values(named, task, *_joined(parts))})

    def by_slice(self, task: Task, named: Mapping[str, Measure]) -> list[ColumnScores]:
        """Return the scores of the rows with a label by the values of each slice column; nothing if there are none."""
        parts = list(_ScoredParts(self.paths, task))
        if not parts:
            return []
        outputs, labels = _joined(parts)
        stops = np.cumsum([len(each) for _, each in parts])  # of each part
        columns = slices.columns_of([scored_slices(read_part(path), task) for path in self.paths], "the input")

        def score(rows: np.ndarray) -> dict[str, float]:
            # Part by part: labels may hold the number of a row in its chunk, which a row of another one has, too.
            by_part = [each for each in np.split(rows, np.searchsorted(rows, stops)) if len(each)]
            found = task.scores([(outputs[each], labels[each]) for each in by_part])
            if found is None:
                return {}
            more = measures.values(named, task, outputs[rows], labels[rows])
            return {**found.values, **more, "num_rows": found.num_rows}

        return slices.by_column(columns, score)

    @property
    def has_labels(self) -> bool:
        """Whether the input has a label column."""
        return has_labels(read_part(self.paths[0]))

    def report_errors(self, report: Callable[[str], None]) -> int:
        """Report the first row with an error; return the number of such rows."""
        num_errors = 0
        for chunk, row, error in error_rows(self.paths):
            num_errors += 1
            if num_errors == 1:
                found = Spool(self.spool).read(chunk)
                place = self.files[found.column("file")[row].as_py()]
                report(f"the first row with an error is {place.row(found.column('line')[row].as_py())}: {error}")
        return num_errors


class _ScoredParts:
    """Outputs and labels of each part that has any, read from disk each time they are iterated over.

    Where no row of a chunk can be used, its part has no labels of any shape or kind that scores could take.
    """

    def __init__(self, paths: Sequence[Path], task: Task) -> None:
        self.paths, self.task = paths, task

    def __iter__(self) -> Iterator[Scored]:
        parts = (scored_rows(read_part(path), self.task) for path in self.paths)
        return ((outputs, labels) for outputs, labels in parts if len(labels))


def _joined(parts: Iterable[Scored]) -> Scored:
    """Return outputs and labels of all parts, of which there are some."""
    outputs, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return outputs, labels


def report_scores(
    scores: Scores | None, sliced: Sequence[ColumnScores], num_rows: int, report: Callable[[str], None]
) -> None:
    """Report the scores, as a whole and by slice, and how many rows do not count for them."""
    if scores is None:
        report("no row has a label that the model knows: no scores")
        return
    unlabelled = num_rows - scores.num_rows
    without = f"; {unlabelled} rows without a label that the model knows, or with an error, do not count"
    values = ", ".join(f"{name} {value:.4f}" for name, value in scores.values.items())
    report(values + (without if unlabelled else ""))
    for each in sliced:
        for name in scores.values:
            report(each.line(name))
    if scores.text:
        report(scores.text)


def report_no_scores(config: PredictConfig, columns: Columns, source: Source, report: Callable[[str], None]) -> None:
    """Report why there will be no scores, if some were asked for and no labels are read."""
    asked = [f"--{name} {getattr(config, name)}" for name in ("metrics", "report") if getattr(config, name)]
    if asked and columns.label is None:
        report(f"no scores for {' and '.join(asked)}: no labels of {source.where} are read (--label_column_name)")


def coverage(min_confidence: float | None, num_written: int, num_rows: int) -> tuple[dict[str, Any], str]:
    """Return which part of the rows was sure enough to be written, for the report and for its line; nothing if all
    are. **Pure.**"""
    if min_confidence is None:
        return {}, ""
    share = num_written / num_rows
    facts = {"num_written": num_written, "coverage": share, "min_confidence": min_confidence}
    return facts, f"{num_written} with a confidence of at least {min_confidence:g} (coverage {share:.4f}) "


def write_report(
    config: PredictConfig,
    facts: dict[str, Any],
    scores: Scores | None,
    sliced: Sequence[ColumnScores],
    ranks: Sequence[WorkerStats],
) -> None:
    """Write the JSON file of ``--report``, if one is asked for."""
    if config.report is None:
        return
    content = {
        "model": config.model_name_or_path,
        "input": config.input,
        "output": config.output,
        **facts,
        "scores": scores.as_json() if scores is not None else None,
        "slices": [each.as_json() for each in sliced],
        "ranks": [asdict(each) for each in ranks],
    }
    disk.replace_text(Path(config.report), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
