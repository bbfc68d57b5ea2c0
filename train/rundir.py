"""The run directory: its configuration, and one live run in it at a time."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ringtune.train import checkpoint, disk, files, final, publish
from ringtune.train.contract import (
    BEST_LINK,
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    HOLDER_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    PROFILE_DIR,
    SET_ASIDE_PREFIX,
    TASK_FILE,
    TENSORBOARD_DIR,
    UsageError,
)


def clear(folder: Path) -> None:
    """Withdraw the final model of a run directory and remove what ringtune wrote there, and nothing else.
    **Rank 0 only**, under the lock.

    The settings stay until those of the new run replace them: wherever this is killed, the folder is still a run's.
    """
    small = _small_files(folder)  # as long as there are manifests to know them by
    final.withdraw(folder)
    for path in small:
        publish.remove(path)
    for _, path in checkpoint.list_checkpoints(folder):
        checkpoint.remove_at_once(path)
    publish.remove_left_behind(folder)
    for path in _cleared(folder):
        publish.remove(path)


def _cleared(folder: Path) -> list[Path]:
    """Return what `clear` removes beside checkpoints and what killed writers left, there or not."""
    others = [BEST_LINK, METRICS_FILE, TENSORBOARD_DIR, PROFILE_DIR, PREDICTIONS_FILE, TASK_FILE, *final.WEIGHTS]
    return [*folder.glob(f"{SET_ASIDE_PREFIX}*"), *(folder / name for name in others)]


def _small_files(folder: Path) -> list[Path]:
    """Return the files beside the weights of a final model that are as ringtune wrote them.

    Which files a tokenizer has differs by family: one that the new model does not have would be loaded with it. Those
    of a final model that is not whole, or was withdrawn, are known by the checkpoints, which have the same.
    """
    kept = (CONFIG_FILE, *final.WEIGHTS)
    found: list[Path] = []
    for source in (folder, *(path for _, path in checkpoint.list_checkpoints(folder))):
        try:
            entries = json.loads((source / MANIFEST_FILE).read_bytes())
        except (OSError, ValueError):
            continue
        named = entries if isinstance(entries, dict) else {}  # else it is damaged
        names = [name for name in named if name == Path(name).name and name not in kept]
        found += [folder / name for name in names if publish.is_as_written(folder / name, named[name])]
    return list(dict.fromkeys(found))


def refuse_to_clear(folder: Path, models: Mapping[str, str | None], rows: Mapping[str, str | None]) -> None:
    """Raise UsageError if `clear` would remove what the new run reads: killed before its first checkpoint, it could not
    start again. Changes nothing.

    models, rows: what the user named, by flag.
    """
    checkpoints = [path for _, path in checkpoint.list_checkpoints(folder)]
    ours = {path.resolve() for path in (*_cleared(folder), *_small_files(folder), *checkpoints)}
    for flag, value in {**models, **rows}.items():
        for entry in files.entries_of(value) if value else ():
            path = Path(entry).resolve()
            if (flag in models and path == folder.resolve()) or ours & {path, *path.parents}:
                raise UsageError(
                    f"{flag} {entry}",
                    f"--overwrite_output_dir removes it from {folder}",
                    legal="what lies elsewhere",
                    todo="choose another --output_dir",
                )


def set_aside(folder: Path, later_than: int, damaged: Collection[Path]) -> Path | None:
    """Move the checkpoints after a step, and damaged ones, to a folder of their own, with a copy of the metrics; return
    it, None if there are none. **Rank 0 only**, under the lock.

    A run that goes on from that step would otherwise mix with them, and a damaged one would keep its good name.
    Wherever this is killed, those that are still there are those of earlier steps.
    """
    moved = [path for step, path in checkpoint.list_checkpoints(folder) if step > later_than or path in damaged]
    if not moved:
        return None
    aside = next(path for number in itertools.count(1) if not (path := folder / f"{SET_ASIDE_PREFIX}{number}").exists())
    aside.mkdir()
    _copy_metrics(folder, aside)
    for path in moved:  # the newest first
        disk.rename(path, aside / path.name)
    return aside


def bring(found: Path, step: int, best: Path | None, folder: Path) -> None:
    """Copy the checkpoint of another run to go on from, its best one and its metrics. **Rank 0 only**, under the lock.

    So the run in the folder is whole from its first step, wherever the other one goes.
    """
    if best is not None:
        checkpoint.copy(best, folder / best.name)
    checkpoint.copy(found, folder / f"{CHECKPOINT_PREFIX}{step}")
    _copy_metrics(found.parent, folder)


def _copy_metrics(source: Path, target: Path) -> None:
    if (source / METRICS_FILE).exists():
        disk.replace_file(target / METRICS_FILE, (source / METRICS_FILE).read_bytes())


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
            raise self._taken() from None
        except (NotImplementedError, OSError) as error:  # the first: filelock, where flock(2) gives ENOSYS
            raise UsageError(
                self.where,
                f"it cannot be locked: {getattr(error, 'strerror', None) or error}",
                legal="a folder one may write to, on a file system with locks",
                todo="choose another folder",
            ) from None
        with disk.named(self.folder / HOLDER_FILE):
            (self.folder / HOLDER_FILE).write_text(f"host {socket.gethostname()}, pid {os.getpid()}")

    def _taken(self) -> UsageError:
        holder = self.folder / HOLDER_FILE
        who = holder.read_text() if holder.exists() else "another process"
        return UsageError(
            self.where,
            f"a run is alive in it: {who}",
            legal="one run in a folder",
            todo="wait for it, stop it, or choose another folder",
        )

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self.lock.is_locked:
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self.lock.release()
