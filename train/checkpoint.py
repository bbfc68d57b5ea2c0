"""Checkpoints that are whole or not there, and the state of a run in them.

A folder is published with the checksums of its files; whatever a crash leaves behind is recognised by its manifest,
which is written last, and passed over.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import disk, publish, rank_state
from ringtune.train.best import Best
from ringtune.train.contract import BEST_LINK, CHECKPOINT_PREFIX, MANIFEST_FILE, UsageError
from safetensors.torch import load as load_tensors

MODEL_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"  # instead of the model's, where only an adapter is trained
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
SMALL_FILE = 16 << 20  # bytes; read at every start, of every checkpoint
FORMAT = 2  # of a checkpoint; raise it when a file changes its meaning
_NAME = re.compile(rf"{CHECKPOINT_PREFIX}(\d+)")


@dataclass(frozen=True)
class RunState:
    """Where a run is: everything beside the tensors that it needs to go on as if nothing had happened."""

    step: int  # updates done
    total_steps: int  # planned when this was written
    epoch: int
    position: int  # in the epoch, in features
    num_shards: int
    best: Best
    loss_scaler: Mapping[str, Any]
    config: Mapping[str, Any]
    data_digest: str  # of the rows as read
    tokenizer_digest: str
    versions: Mapping[str, str]
    metrics: Mapping[str, Any] | None = None  # size and sha256 of the metrics file up to here
    schedule_steps: int | None = None  # of the learning rates, if not total_steps
    rows_digest: str | None = None  # of the training rows' content alone, for a later run that replays them
    start_digest: str | None = None  # of the weights of the run to stay close to, if there is one

    @property
    def steps_of_schedule(self) -> int:
        """Steps that the learning rates were planned for."""
        return self.schedule_steps or self.total_steps

    def to_json(self) -> dict[str, Any]:
        """Return the state for state.json."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any, where: str) -> RunState:
        """Return the state that `to_json` gave. Raises UsageError for another format, naming it."""
        found = content.get("format", 1) if isinstance(content, Mapping) else None
        if found != FORMAT:
            raise UsageError(
                where,
                f"its state has format {found!r}",
                legal=f"format {FORMAT}, of this version of ringtune",
                todo="go on with the version that wrote it",
            )
        names = [each.name for each in dataclasses.fields(cls)]
        optional = [each.name for each in dataclasses.fields(cls) if each.default is not dataclasses.MISSING]
        missing = [name for name in names if name not in content and name not in optional]
        if missing:
            raise UsageError(where, f"its state has no {missing[0]}", legal="a checkpoint as ringtune wrote it")
        found = {name: content[name] for name in names if name in content}
        return cls(**{**found, "best": Best(**content["best"])})


@dataclass(frozen=True)
class Snapshot:
    """A run in host memory: nothing in it changes when training goes on."""

    state: RunState
    model: memoryview  # content of model.safetensors, or of the adapter's file
    optimizer: memoryview  # content of optimizer.safetensors
    files: Mapping[str, bytes]  # configuration, tokenizer and task, for from_pretrained and prediction
    parts: Sequence[rank_state.Part] = ()  # what ranks have of their own, on the disk already
    weights_file: str = MODEL_FILE


@dataclass(frozen=True)
class Loaded:
    """What was read of a checkpoint."""

    state: RunState
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]  # moments, by parameter name


@dataclass(frozen=True)
class Skipped:
    """A folder that is no checkpoint to go on from, and why."""

    path: Path
    reason: str


# Writing


def write_checkpoint(output_dir: Path, snapshot: Snapshot) -> Path:
    """Write and publish ``checkpoint-<step>``; return its path. **Rank 0 only.**

    Survives a crash at any write, flush or rename. A whole checkpoint of the same step is kept, a broken one replaced.
    Raises UsageError for a full disk, OSError for other failures; the temporary folder is then removed.
    """
    target = output_dir / f"{CHECKPOINT_PREFIX}{snapshot.state.step}"
    output_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output_dir).free
    try:
        with publish.new_folder(target) as new:
            for part in snapshot.parts:
                new.take_over(part.path, part.name, part.entry)
            for name, content in snapshot.files.items():
                new.write(name, content)
            new.write(snapshot.weights_file, snapshot.model)
            new.write(OPTIMIZER_FILE, snapshot.optimizer)
            new.write(STATE_FILE, json.dumps(snapshot.state.to_json(), indent=1).encode())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        needed = snapshot.model.nbytes + snapshot.optimizer.nbytes
        raise UsageError(
            str(target),
            f"the disk is full: {needed} bytes needed, {free} were free",
            legal="room for a checkpoint; the earlier ones are whole",
            todo="free space or lower --save_total_limit, then run again",
        ) from error
    return target


# Reading


def weights_file(folder: Path) -> str:
    """Return the name of the file that the weights of a checkpoint or final model are in, or should be."""
    is_adapter = (folder / ADAPTER_FILE).exists() and not (folder / MODEL_FILE).exists()
    return ADAPTER_FILE if is_adapter else MODEL_FILE


def _required(path: Path) -> tuple[str, ...]:
    return (weights_file(path), OPTIMIZER_FILE, STATE_FILE)


def verify(path: Path, *, read_up_to: float = math.inf) -> str | None:
    """Return why a folder is not a whole checkpoint, None if it is. Reads every byte, but of files of more bytes than
    ``read_up_to`` the size alone."""
    return publish.verify_folder(path, _required(path), read_up_to=read_up_to)


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of everything named like a checkpoint, newest first."""
    named = [(_NAME.fullmatch(each.name), each) for each in output_dir.iterdir()] if output_dir.is_dir() else []
    return sorted(((int(match[1]), each) for match, each in named if match), reverse=True)


def find_latest(output_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """Return the newest checkpoint that is whole, and all that are not.

    Of those before it, large files are not read: that they are whole is found out when one of them is used.
    """
    unfinished = publish.left_behind(output_dir, CHECKPOINT_PREFIX)
    skipped = [Skipped(each, "its writing never ended") for each in unfinished]
    found = None
    for _, path in list_checkpoints(output_dir):
        reason = verify(path) if found is None else verify(path, read_up_to=SMALL_FILE)
        if reason is not None:
            skipped.append(Skipped(path, reason))
        elif found is None:
            found = path
    return found, skipped


def load_state(path: Path) -> RunState:
    """Return a checkpoint's state. Raises UsageError if the checkpoint is not whole, or of another format."""
    _require_whole(path)
    return read_state(path)


def read_state(path: Path) -> RunState:
    """Return the state of a checkpoint that is known to be whole. Raises UsageError for another format."""
    return RunState.from_json(json.loads((path / STATE_FILE).read_bytes()), str(path))


def load_checkpoint(path: Path) -> Loaded:
    """Return a checkpoint's content, on the CPU, without what single ranks keep. No pickle is ever read. Raises
    UsageError if it is not whole."""
    _require_whole(path, unread=rank_state.NAME)  # every rank would read what all ranks wrote
    return Loaded(
        state=read_state(path),
        model=load_tensors((path / weights_file(path)).read_bytes()),
        optimizer=load_tensors((path / OPTIMIZER_FILE).read_bytes()),
    )


def _require_whole(path: Path, unread: re.Pattern[str] | None = None) -> None:
    is_there = path.exists()
    reason = publish.verify_folder(path, _required(path), unread=unread) if is_there else "there is no such folder"
    if reason is not None:
        legal = [each.name for _, each in list_checkpoints(path.parent) if verify(each) is None]
        raise UsageError(
            str(path),
            f"not a whole checkpoint: {reason}",
            legal=f"beside it: {', '.join(legal) or 'none'}",
            todo="name one of these, or latest",
        )


# Removing


def remove_at_once(path: Path) -> None:
    """Remove a checkpoint under another name, so that nobody ever finds half of it under its own. **Rank 0 only.**"""
    publish.remove(disk.rename(path, path.with_name(f".{path.name}.{publish.unique_suffix()}.old")))


def rotate(output_dir: Path, keep: int | None, protect: Collection[Path]) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints and the protected ones; return what was removed. **Rank 0 only.**

    Call it when the newest is known to be whole. A crash in between leaves temporary names, never half a checkpoint.
    """
    if keep is None:
        return []
    protected = {each.resolve() for each in protect}
    removed = [each for _, each in list_checkpoints(output_dir)[max(1, keep) :] if each.resolve() not in protected]
    for path in removed:
        remove_at_once(path)
    return removed


def copy(path: Path, target: Path) -> None:
    """Copy a whole checkpoint, unless one is there already. **Rank 0 only.** Raises OSError."""
    with publish.new_folder(target) as new:
        for each in sorted(path.iterdir()):
            if each.name != MANIFEST_FILE:
                with each.open("rb") as source, new.open(each.name) as file:
                    shutil.copyfileobj(source, file)


def point_best(output_dir: Path, checkpoint: Path) -> None:
    """Make ``best`` a link to a checkpoint, replaced in one rename, where there are links. **Rank 0 only.**"""
    temporary = publish.temporary_file(output_dir, BEST_LINK)
    if _link(temporary, checkpoint.name):
        disk.rename(temporary, output_dir / BEST_LINK)


def can_link(output_dir: Path) -> bool:
    """Return whether the file system of a run's folder has symbolic links; FAT and some network shares have none."""
    path = publish.temporary_file(output_dir, BEST_LINK)
    is_made = _link(path, "nothing")
    path.unlink(missing_ok=True)
    return is_made


def _link(path: Path, target: str) -> bool:
    try:
        path.symlink_to(target)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):  # symlink(2)
            return False
        raise
    return True
