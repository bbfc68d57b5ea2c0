"""What a finished prediction reports: rows with an error, scores, and where the time went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringtune.train import disk
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.parts import Spool, error_rows, read_part
from ringtune.train.predict.predictor import SCORE_LABEL, scored_rows
from ringtune.train.predict.workers import WorkerStats
from ringtune.train.scores import Scored, Scores
from ringtune.train.source import Place
from ringtune.train.task import Task


@dataclass(frozen=True)
class Parts:
    """The predictions of all rows, in parts on disk."""

    paths: Sequence[Path]
    spool: Path
    files: Sequence[Place]  # of the input, for messages
    num_rows: int

    def scores(self, task: Task) -> Scores | None:
        """Return the scores of the rows with a label, None if there are none."""
        return task.scores(_ScoredParts(self.paths, task)) if self.has_labels else None

    @property
    def has_labels(self) -> bool:
        """Whether the input has a label column."""
        return SCORE_LABEL in read_part(self.paths[0]).schema.names

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
    """Outputs and labels of each part, read from disk each time they are iterated over."""

    def __init__(self, paths: Sequence[Path], task: Task) -> None:
        self.paths, self.task = paths, task

    def __iter__(self) -> Iterator[Scored]:
        return (scored_rows(read_part(path), self.task) for path in self.paths)


def report_scores(scores: Scores | None, num_rows: int, report: Callable[[str], None]) -> None:
    """Report the scores, and how many rows do not count for them."""
    if scores is None:
        report("no row has a label that the model knows: no scores")
        return
    unlabelled = num_rows - scores.num_rows
    without = f"; {unlabelled} rows without a label that the model knows, or with an error, do not count"
    values = ", ".join(f"{name} {value:.4f}" for name, value in scores.values.items())
    report(values + (without if unlabelled else ""))
    if scores.text:
        report(scores.text)


def write_report(
    config: PredictConfig, facts: dict[str, Any], scores: Scores | None, ranks: Sequence[WorkerStats]
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
        "ranks": [asdict(each) for each in ranks],
    }
    disk.replace_text(Path(config.report), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
