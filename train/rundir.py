"""The run directory: whose it is, what is logged there, and one live run in it at a time."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ringtune.train import checkpoint, disk
from ringtune.train.contract import (
    BEST_LINK,
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    FINISHED_FILE,
    HOLDER_FILE,
    LOCK_FILE,
    METRICS_FILE,
    TENSORBOARD_DIR,
    UsageError,
    read_records,
)


def clear(folder: Path) -> None:
    """Remove what ringtune wrote into a run directory, and nothing else. **Rank 0 only**, under the lock."""
    ours = [folder / name for name in (BEST_LINK, METRICS_FILE, TENSORBOARD_DIR, FINISHED_FILE, CONFIG_FILE)]
    ours += folder.glob(f"{CHECKPOINT_PREFIX}*")
    ours += folder.glob(f".{CHECKPOINT_PREFIX}*")
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / checkpoint.MODEL_FILE).unlink(missing_ok=True)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration a run started with. Raises UsageError if it cannot be read."""
    import yaml

    path = folder / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            str(path),
            f"it cannot be read: {' '.join(str(error).split())}",
            legal="the file ringtune wrote",
            todo="restore it, or use --overwrite_output_dir",
        ) from None
    if not isinstance(content, dict):
        raise UsageError(
            str(path), "it holds no settings", legal="the file ringtune wrote", todo="use --overwrite_output_dir"
        )
    return content


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one piece."""
    disk.replace_file(path, text.encode("utf-8"))


class RunLock:
    """Held by rank 0 while a run lives; the system lets go of it when the process dies, however it dies."""

    def __init__(self, folder: Path, flag: str = "--output_dir") -> None:
        self.folder = folder
        self.where = f"{flag} {folder}"
        self.lock = FileLock(folder / LOCK_FILE, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Take the lock. Raises UsageError naming the run that has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(self.where, str(error.strerror), legal="a folder one may write to") from None
        try:
            self.lock.acquire()
        except Timeout:
            holder = self.folder / HOLDER_FILE
            who = holder.read_text() if holder.exists() else "another process"
            raise UsageError(
                self.where,
                f"a run is alive in it: {who}",
                legal="one run in a folder",
                todo="wait for it, stop it, or choose another folder",
            ) from None
        (self.folder / HOLDER_FILE).write_text(f"host {socket.gethostname()}, pid {os.getpid()}")

    def release(self) -> None:
        """Let go, if it is held."""
        if self.lock.is_locked:
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self.lock.release()


class MetricsLog:
    """One JSON object a line; rank 0 appends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def truncate_after(self, step: int) -> None:
        """Drop what a run that goes on from ``step`` will write again: later steps, the evaluation of this one (it comes
        after the checkpoint) and a line that a crash tore."""
        if self.path.exists():
            kept = [record for record in read_records(self.path) if _stays(record, step)]
            disk.replace_file(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def _stays(record: Mapping[str, Any], step: int) -> bool:
    here = record.get("step", 0)
    return bool(here < step or (here == step and record.get("event") != "eval"))
