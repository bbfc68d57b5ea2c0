"""Checkpoints that are whole or not there, and the state of a run in them.

A folder is published with the checksums of its files; whatever a crash leaves behind is recognised by its manifest,
which is written last, and passed over.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import disk, publish
from ringtune.train.contract import BEST_LINK, CHECKPOINT_PREFIX, METRICS_FILE, UsageError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
FORMAT = 2  # of a checkpoint; raise it when a file changes its meaning
_REQUIRED = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE)
_NAME = re.compile(rf"{CHECKPOINT_PREFIX}(\d+)")
_TEMPORARY = re.compile(rf"\.{CHECKPOINT_PREFIX}\d+\..*\.(tmp|old)")
_LEFT = re.compile(rf"\.({BEST_LINK}|{re.escape(MODEL_FILE)}|{re.escape(METRICS_FILE)})\.[0-9a-f]+\.tmp")


@dataclass
class Best:
    """The best evaluation so far."""

    score: float | None = None
    step: int = 0
    num_worse: int = 0  # evaluations since without improvement


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
        missing = [name for name in names if name not in content]
        if missing:
            raise UsageError(where, f"its state has no {missing[0]}", legal="a checkpoint as ringtune wrote it")
        return cls(**{**{name: content[name] for name in names}, "best": Best(**content["best"])})


@dataclass(frozen=True)
class Snapshot:
    """A run in host memory: nothing in it changes when training goes on."""

    state: RunState
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]  # moments, by parameter name
    files: Mapping[str, bytes]  # configuration, tokenizer and task, for from_pretrained and prediction


@dataclass(frozen=True)
class Skipped:
    """A folder that is no checkpoint to go on from, and why."""

    path: Path
    reason: str


def to_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies in host memory. Of tensors that share storage (tied weights) only the first is kept: safetensors
    refuses the others, and transformers ties them again when it loads."""
    seen: set[tuple[int, int]] = set()
    result = {}
    on_gpu = False
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.numel())
        if place in seen and tensor.numel():
            continue
        seen.add(place)
        on_gpu = on_gpu or tensor.is_cuda
        # Pinned memory: all copies are under way at once, at the speed of the bus.
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        result[name] = copy.copy_(tensor.detach(), non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize()
    return result


# Writing


def write_checkpoint(output_dir: Path, snapshot: Snapshot) -> Path:
    """Write and publish ``checkpoint-<step>``; return its path. **Rank 0 only.**

    Survives a crash at any write, flush or rename. A whole checkpoint of the same step is kept, a broken one replaced.
    Raises UsageError for a full disk, OSError for other failures; the temporary folder is then removed.
    """
    target = output_dir / f"{CHECKPOINT_PREFIX}{snapshot.state.step}"
    try:
        with publish.new_folder(target) as new:
            for name, content in snapshot.files.items():
                new.write(name, content)
            new.write(MODEL_FILE, model_bytes(snapshot.model))
            new.write(OPTIMIZER_FILE, tensor_bytes(dict(snapshot.optimizer)))
            new.write(STATE_FILE, json.dumps(snapshot.state.to_json(), indent=1).encode())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        needed = sum(each.nbytes for each in [*snapshot.model.values(), *snapshot.optimizer.values()])
        raise UsageError(
            str(target),
            f"the disk is full: {needed} bytes needed, {shutil.disk_usage(output_dir).free} free",
            legal="room for a checkpoint; the earlier ones are whole",
            todo="free space or lower --save_total_limit, then run again",
        ) from error
    return target


def model_bytes(model: Mapping[str, torch.Tensor]) -> bytes:
    """Return weights as the content of ``model.safetensors``."""
    return tensor_bytes(dict(model), metadata={"format": "pt"})


def write_model(folder: Path, model: Mapping[str, torch.Tensor], files: Mapping[str, bytes]) -> None:
    """Write what ``from_pretrained`` loads into a folder: each file replaced at once, weights last. **Rank 0 only.**"""
    for name, content in files.items():
        disk.replace_file(folder / name, content)
    disk.replace_file(folder / MODEL_FILE, model_bytes(model))


# Reading


def verify(path: Path) -> str | None:
    """Return why a folder is not a whole checkpoint, None if it is. Reads every byte."""
    return publish.verify_folder(path, _REQUIRED)


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of everything named like a checkpoint, newest first."""
    named = [(_NAME.fullmatch(each.name), each) for each in output_dir.iterdir()] if output_dir.is_dir() else []
    return sorted(((int(match[1]), each) for match, each in named if match), reverse=True)


def find_latest(output_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """Return the newest checkpoint that verifies, and what was skipped on the way to it."""
    skipped = [Skipped(each, "its writing never ended") for each in _named_like(_TEMPORARY, output_dir)]
    for _, path in list_checkpoints(output_dir):
        reason = verify(path)
        if reason is None:
            return path, skipped
        skipped.append(Skipped(path, reason))
    return None, skipped


def load_state(path: Path) -> RunState:
    """Return a checkpoint's state. Raises UsageError if the checkpoint is not whole, or of another format."""
    _require_whole(path)
    return RunState.from_json(json.loads((path / STATE_FILE).read_bytes()), str(path))


def load_checkpoint(path: Path) -> Snapshot:
    """Return a checkpoint's content, on the CPU. Raises UsageError if it is not whole. No pickle is ever read."""
    return Snapshot(
        state=load_state(path),
        model=load_tensors((path / MODEL_FILE).read_bytes()),
        optimizer=load_tensors((path / OPTIMIZER_FILE).read_bytes()),
        files={},
    )


def _require_whole(path: Path) -> None:
    reason = "there is no such folder" if not path.exists() else verify(path)
    if reason is not None:
        legal = [each.name for _, each in list_checkpoints(path.parent) if verify(each) is None]
        raise UsageError(
            str(path),
            f"not a whole checkpoint: {reason}",
            legal=f"beside it: {', '.join(legal) or 'none'}",
            todo="name one of these, or latest",
        )


# Removing


def _named_like(pattern: re.Pattern[str], output_dir: Path) -> list[Path]:
    return sorted(each for each in output_dir.iterdir() if pattern.fullmatch(each.name)) if output_dir.is_dir() else []


def clean_stale(output_dir: Path) -> list[Path]:
    """Remove what crashed writers left of checkpoints, of ``best``, and of the files that are replaced whole and may be
    large. **Rank 0 only**, under the run's lock: no other writer is alive then."""
    stale = [*_named_like(_TEMPORARY, output_dir), *_named_like(_LEFT, output_dir)]
    for path in stale:
        publish.remove(path)
    return stale


def rotate(output_dir: Path, keep: int | None, protect: Collection[Path]) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints and the protected ones; return what was removed. **Rank 0 only.**

    Call it when the newest is known to be whole. A crash in between leaves temporary names, never half a checkpoint.
    """
    if keep is None:
        return []
    protected = {each.resolve() for each in protect}
    removed = [each for _, each in list_checkpoints(output_dir)[max(1, keep) :] if each.resolve() not in protected]
    for path in removed:
        publish.remove(disk.rename(path, output_dir / f".{path.name}.{publish.unique_suffix()}.old"))
    return removed


def point_best(output_dir: Path, checkpoint: Path) -> None:
    """Make ``best`` a link to a checkpoint, replaced in one rename. **Rank 0 only.**"""
    temporary = output_dir / f".{BEST_LINK}.{publish.unique_suffix().rpartition('.')[2]}.tmp"
    temporary.symlink_to(checkpoint.name)
    disk.rename(temporary, output_dir / BEST_LINK)
