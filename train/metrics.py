"""``metrics.jsonl``: one JSON object a line, and how much of it is as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.train import disk, publish
from ringtune.train.contract import record_of


class MetricsFile:
    """The metrics of a run; rank 0 appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checksum = publish.Checksum()  # of what is in it

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record. Raises OSError, naming the file."""
        line = (json.dumps(record) + "\n").encode()
        disk.append(self.path, line)
        self.checksum.add(line)

    def truncate_after(self, step: int, expected: Mapping[str, Any] | None = None) -> str:
        """Drop what a run resumed at ``step`` will write again: later steps, the evaluation of this step (which comes
        after its checkpoint) and a line that a crash cut off. Every other whole line stays.

        expected: of ``checksum`` when the checkpoint was written. Returns what is wrong with the file, "" for nothing.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        *lines, _cut_off = content.split(b"\n")
        records = [record_of(line) for line in lines]
        kept = b"".join(line + b"\n" for line, each in zip(lines, records, strict=True) if each and _stays(each, step))
        if self.path.exists():
            disk.replace_file(self.path, kept)
        self.checksum.add(kept)
        if expected is None or self.checksum.entry() == expected:
            return ""
        num_damaged = sum(each is None for each in records)
        words = f"{num_damaged} damaged line(s) left out" if num_damaged else "lines are missing or changed"
        return f"{self.path}: it is not what was written up to step {step}: {words}"


def difference(path: Path, expected: Mapping[str, Any] | None) -> str:
    """Return how the metrics of a finished run differ from what it wrote, "" if they do not."""
    if expected is None or (path.exists() and publish.entry_of(path.read_bytes()) == expected):
        return ""
    return f"{path}: it is not what the run wrote"


def _stays(record: Mapping[str, Any], step: int) -> bool:
    here = record.get("step", 0)
    return bool(here < step or (here == step and record.get("event") not in ("eval", "slices")))
