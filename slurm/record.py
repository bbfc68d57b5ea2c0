"""What a run directory records of its batch jobs: every submission, start and end, and how far the run is.

The record is a file of one JSON object a line to which processes on several hosts append. Nothing in it can be derived
from something else; counts of requeues, tries and the state of the run are read off it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ringtune.train.contract import (
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    FINISHED_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    SLURM_DIR,
    UsageError,
    read_records,
)

EVENTS_FILE = "events.jsonl"
SCRIPT_FILE = "job.sbatch"
SUBMISSION_FILE = "submission.json"
SWEEP_FILE = "sweep.json"

# What happens to a job; the values of "event".
SUBMITTED = "submitted"  # by a user; counts start again
QUEUED = "queued"  # sbatch took it; has job_id and log
REFUSED = "refused"  # sbatch did not; has its words
STARTED = "started"
ENDED = "ended"
CANCELLED = "cancelled"  # by ringtune-slurm cancel

_CHECKPOINT = re.compile(rf"{CHECKPOINT_PREFIX}(\d+)")

Event = Mapping[str, Any]


class Record:
    """The batch side of one run directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.folder = run / SLURM_DIR

    def events(self) -> list[dict[str, Any]]:
        """Return all events, oldest first."""
        path = self.folder / EVENTS_FILE
        return read_records(path) if path.exists() else []

    def add(self, event: str, **facts: Any) -> None:
        """Append an event and flush it to the device: what follows may be the end of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": event, "time": time.time(), **facts}) + "\n"
        with (self.folder / EVENTS_FILE).open("a+b") as stream:
            # One write, so that lines of several hosts do not mix; a line that a crash tore is left behind.
            stream.write((b"" if _ends_well(stream) else b"\n") + line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def signature(self) -> list[int] | None:
        """Return the identity of the configuration file, which changes when a run takes the directory; None if none."""
        try:
            found = (self.run / CONFIG_FILE).stat()
        except FileNotFoundError:
            return None
        return [found.st_mtime_ns, found.st_size]

    def checkpoint(self) -> tuple[int, float] | None:
        """Return step and time of the newest checkpoint whose writing ended, None if there is none."""
        found = [
            (int(match[1]), each)
            for each in (self.run.iterdir() if self.run.is_dir() else ())
            if (match := _CHECKPOINT.fullmatch(each.name)) and (each / MANIFEST_FILE).exists()
        ]
        if not found:
            return None
        step, path = max(found)
        return step, (path / MANIFEST_FILE).stat().st_mtime

    def saved_step(self) -> int:
        """Return the step that a kill cannot take away, 0 if there is none."""
        found = self.checkpoint()
        return found[0] if found else 0

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of training and evaluation."""
        path = self.run / METRICS_FILE
        return [each for each in read_records(path) if each["event"] != "rows"] if path.exists() else []

    def progressed_at(self) -> float:
        """Return when training last wrote something, 0 if never."""
        paths = [self.run / METRICS_FILE, self.run / FINISHED_FILE]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)

    def finished(self) -> dict[str, Any] | None:
        """Return what a finished run wrote of itself, None while it is not finished."""
        try:
            return dict(json.loads((self.run / FINISHED_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def submission(self) -> dict[str, Any]:
        """Return what was submitted and how, {} if the script was submitted by hand."""
        try:
            return dict(json.loads((self.folder / SUBMISSION_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def __bool__(self) -> bool:
        """Whether there is one, be it of a run that its sweep's --array left out."""
        return any((self.folder / name).exists() for name in (EVENTS_FILE, SUBMISSION_FILE))


def _ends_well(stream: BinaryIO) -> bool:
    """Return whether a file is empty or ends with a line break."""
    if stream.seek(0, os.SEEK_END) == 0:
        return True
    stream.seek(-1, os.SEEK_END)
    return stream.read() == b"\n"


@dataclass(frozen=True)
class History:
    """What counts of a run's events: those since the user last submitted it."""

    events: Sequence[Event]

    @classmethod
    def of(cls, events: Sequence[Event]) -> History:
        """Return the history that the latest submission began. **Pure.**"""
        starts = [index for index, each in enumerate(events) if each["event"] == SUBMITTED]
        mine = events[starts[-1] :] if starts else events
        # Of a large sweep, jobs may start, and end, before it is written down that they are queued.
        started = {each["job_id"] for each in mine if each["event"] == STARTED}
        late = [each for each in mine if each["event"] == QUEUED and each["job_id"] in started]
        return cls([*mine[:1], *late, *(each for each in mine[1:] if each not in late)] if late else mine)

    def last(self, *kinds: str) -> Event | None:
        """Return the latest event of these kinds."""
        return next((each for each in reversed(self.events) if each["event"] in kinds), None)

    @property
    def job_id(self) -> str:
        """The job that SLURM knows the run by now, "" if it never took one."""
        found = [each["job_id"] for each in self.events if each.get("job_id")]
        return str(found[-1]) if found else ""

    @property
    def num_requeues(self) -> int:
        """How often a job of the run has started again, whoever requeued it."""
        return max(0, sum(each["event"] == STARTED for each in self.events) - 1)

    @property
    def num_idle_tries(self) -> int:
        """Ends in a row, up to the latest, that left no step more than their starts had found. Those that SLURM decided
        (a preempted job, a lost node) are passed over: they say nothing of the run."""
        count = 0
        for each in reversed(self.events):
            if each["event"] != ENDED or each["decision"] == "slurm":
                continue
            if each["step"] > each["started_at_step"]:
                break
            count += 1
        return count


def unfinished(runs: Sequence[Path]) -> list[Path]:
    """Return the runs that have not finished."""
    return [run for run in runs if Record(run).finished() is None]


def runs_below(folder: Path) -> list[Path]:
    """Return the run directories of a folder: those of a sweep, or the folder itself. Raises UsageError for a damaged
    list of a sweep's runs."""
    path = folder / SLURM_DIR / SWEEP_FILE
    if not path.exists():
        return [folder]
    try:
        return [folder / name for name in json.loads(path.read_text(encoding="utf-8"))["runs"]]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            str(path),
            "it is no list of runs: it is damaged, or a submission was killed",
            legal="as ringtune-slurm submit writes it",
            todo="submit the sweep again: its runs go on from their checkpoints",
        ) from None
