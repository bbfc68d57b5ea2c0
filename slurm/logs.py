"""The log of a run's jobs, from the start or as it grows."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import BinaryIO

from ringtune.slurm import record as records
from ringtune.slurm import status
from ringtune.slurm.record import History, Record
from ringtune.train.contract import UsageError

POLL_S = 0.5
ASK_SLURM_EVERY_S = 5.0


def paths(record: Record, rank: int | None) -> list[Path]:
    """Return the log files of the run's jobs since it was last submitted, oldest first; of one rank if it is named."""
    found: dict[str, None] = {}
    for event in History.of(record.events()).events:
        if event["event"] not in (records.QUEUED, records.STARTED):
            continue
        if rank is None and event.get("log"):
            found[str(event["log"])] = None
        elif rank is not None and event["event"] == records.STARTED:
            folder = record.folder / "ranks" / f"{event['job_id']}.{event['restart']}"
            names = [each for each in folder.glob("rank-*.log") if int(each.stem.removeprefix("rank-")) == rank]
            found |= dict.fromkeys(map(str, names))
    return [Path(each) for each in found]


def show(run: Path, *, rank: int | None, follow: bool, out: BinaryIO | None = None) -> None:
    """Write the log to standard output; with ``follow`` until the run is over. Raises UsageError if there is none."""
    out = out or sys.stdout.buffer
    record = Record(run)
    shown: dict[Path, int] = {}  # file → bytes written
    asked = 0.0
    is_over = not follow
    while True:
        for path in paths(record, rank):
            shown[path] = _copy(path, shown.get(path, 0), out)
        if is_over:
            break
        if time.monotonic() - asked > ASK_SLURM_EVERY_S:
            asked = time.monotonic()
            is_over = status.look([run])[0].is_over  # what was written until then is still shown
        else:
            time.sleep(POLL_S)
    if not any(shown.values()):
        raise UsageError(
            str(run),
            "there is no log" + (f" of rank {rank}" if rank is not None else "") + " yet",
            legal="a job that has started",
            todo="see ringtune-slurm status",
        )


def _copy(path: Path, start: int, out: BinaryIO) -> int:
    """Write what a file has from ``start`` on and return where it ends now."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read()
    except FileNotFoundError:
        return start
    out.write(data)
    out.flush()
    return start + len(data)
