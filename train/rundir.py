"""The run directory: its configuration, and one live run in it at a time."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ringtune.train import checkpoint, publish
from ringtune.train.contract import (
    BEST_LINK,
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    FINISHED_FILE,
    HOLDER_FILE,
    LOCK_FILE,
    METRICS_FILE,
    TASK_FILE,
    TENSORBOARD_DIR,
    UsageError,
)


def clear(folder: Path) -> None:
    """Remove what ringtune wrote into a run directory, and nothing else. **Rank 0 only**, under the lock."""
    ours = [folder / name for name in (BEST_LINK, METRICS_FILE, TENSORBOARD_DIR, FINISHED_FILE, CONFIG_FILE)]
    ours += folder.glob(f"{CHECKPOINT_PREFIX}*")
    ours += folder.glob(f".{CHECKPOINT_PREFIX}*")
    for path in [*ours, folder / checkpoint.MODEL_FILE, folder / TASK_FILE]:
        publish.remove(path)


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


class RunLock:
    """Held by rank 0 while a run is alive; the system releases it when the process ends, however it ends."""

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
        """Release the lock, if it is held."""
        if self.lock.is_locked:
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self.lock.release()
