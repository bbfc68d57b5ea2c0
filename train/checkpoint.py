"""Checkpoints that are whole or not there.

Written to a temporary folder, hashed while written, flushed, published by one rename. Whatever a crash leaves behind is
recognised by its manifest, which is written last, and stepped over.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import disk
from ringtune.train.contract import BEST_LINK, CHECKPOINT_PREFIX, MANIFEST_FILE, METRICS_FILE, UsageError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
_NAME = re.compile(rf"{CHECKPOINT_PREFIX}(\d+)")
_TEMPORARY = re.compile(rf"\.{CHECKPOINT_PREFIX}\d+\..*\.(tmp|old)")
_LEFT = re.compile(rf"\.({BEST_LINK}|{re.escape(MODEL_FILE)}|{re.escape(METRICS_FILE)})\.[0-9a-f]+\.tmp")


@dataclass(frozen=True)
class Snapshot:
    """The whole state of a run in host memory: nothing in it changes when training goes on."""

    step: int
    tensors: Mapping[str, torch.Tensor]  # optimizer state
    state: Mapping[str, Any]  # JSON
    model: Mapping[str, torch.Tensor]
    files: Mapping[str, bytes]  # configuration and tokenizer files, for from_pretrained


@dataclass(frozen=True)
class Finding:
    """A folder that is no checkpoint to go on from, and why."""

    path: Path
    reason: str


def to_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies in host memory. Of tensors that share storage (tied weights) only the first is kept: safetensors
    refuses the others, and transformers ties them again when it loads."""
    seen: set[tuple[int, int]] = set()
    result = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.numel())
        if place in seen and tensor.numel():
            continue
        seen.add(place)
        result[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return result


# Writing


def write_checkpoint(output_dir: Path, snapshot: Snapshot) -> Path:
    """Write and publish ``checkpoint-<step>``; return its path. **Rank 0 only.**

    Survives a crash at any write, flush or rename: until the last rename there is only a temporary folder. A whole
    checkpoint of the same step is kept, a broken one moved aside. Raises OSError; the temporary folder is then removed.
    """
    target = output_dir / f"{CHECKPOINT_PREFIX}{snapshot.step}"
    unique = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    temporary = output_dir / f".{target.name}.{unique}.tmp"
    try:
        temporary.mkdir(parents=True)
        _write_files(
            temporary,
            {
                **snapshot.files,
                MODEL_FILE: tensor_bytes(dict(snapshot.model), metadata={"format": "pt"}),
                OPTIMIZER_FILE: tensor_bytes(dict(snapshot.tensors)),
                STATE_FILE: json.dumps(snapshot.state, indent=1).encode(),
            },
        )
        if target.exists() and verify(target) is None:
            shutil.rmtree(temporary)
            return target
        if target.exists() or target.is_symlink():
            disk.rename(target, output_dir / f".{target.name}.{unique}.old")
        return disk.rename(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            needed = sum(each.nbytes for each in [*snapshot.model.values(), *snapshot.tensors.values()])
            free = shutil.disk_usage(output_dir).free
            raise UsageError(
                str(target),
                f"the disk is full: {needed} bytes needed, {free} free",
                legal="room for a checkpoint; the earlier ones are whole",
                todo="free space or lower --save_total_limit, then run again",
            ) from error
        raise


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    manifest = {}
    for name, content in files.items():
        disk.write_bytes(folder / name, content)
        manifest[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    disk.write_bytes(folder / MANIFEST_FILE, json.dumps(manifest, indent=1).encode())
    disk.sync_folder(folder)


def write_model(folder: Path, model: Mapping[str, torch.Tensor], files: Mapping[str, bytes]) -> None:
    """Write what ``from_pretrained`` loads into a folder, each file replaced whole, the weights last. **Rank 0 only.**"""
    for name, content in files.items():
        disk.replace_file(folder / name, content)
    disk.replace_file(folder / MODEL_FILE, tensor_bytes(dict(model), metadata={"format": "pt"}))


# Reading


def verify(path: Path) -> str | None:
    """Return why a folder is not a whole checkpoint, None if it is. Reads every byte."""
    if not path.is_dir():
        return "it is not a folder"
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        expected = {str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in manifest.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST_FILE}: its writing never ended"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST_FILE} cannot be read: {error}"
    for name in (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE):
        if name not in expected:
            return f"{MANIFEST_FILE} does not list {name}"
    for name, (size, sha256) in expected.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        found = (path / name).stat().st_size
        if found != size:
            return f"{name} has {found} of {size} bytes"
        with (path / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                return f"{name} is not what was written: its sha256 differs"
    return None


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of everything named like a checkpoint, newest first."""
    named = [(_NAME.fullmatch(each.name), each) for each in output_dir.iterdir()] if output_dir.is_dir() else []
    return sorted(((int(match[1]), each) for match, each in named if match), reverse=True)


def find_latest(output_dir: Path) -> tuple[Path | None, list[Finding]]:
    """Return the newest checkpoint that verifies, and what was stepped over on the way to it."""
    findings = [Finding(each, "its writing never ended") for each in _named_like(_TEMPORARY, output_dir)]
    for _, path in list_checkpoints(output_dir):
        reason = verify(path)
        if reason is None:
            return path, findings
        findings.append(Finding(path, reason))
    return None, findings


def load_state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json. Raises UsageError if the checkpoint is not whole."""
    _require_whole(path)
    state = json.loads((path / STATE_FILE).read_bytes())
    return dict(state) if isinstance(state, dict) else {}


def load_checkpoint(path: Path) -> Snapshot:
    """Return a checkpoint's content, on the CPU. Raises UsageError if it is not whole. No pickle is ever read."""
    state = load_state(path)
    return Snapshot(
        step=int(state["step"]),
        tensors=load_tensors((path / OPTIMIZER_FILE).read_bytes()),
        state=state,
        model=load_tensors((path / MODEL_FILE).read_bytes()),
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


# Keeping house


def _named_like(pattern: re.Pattern[str], output_dir: Path) -> list[Path]:
    return sorted(each for each in output_dir.iterdir() if pattern.fullmatch(each.name)) if output_dir.is_dir() else []


def clean_stale(output_dir: Path) -> list[Path]:
    """Remove what crashed writers left: of checkpoints, of ``best``, and of the files that are replaced whole and may be
    large. **Rank 0 only**, under the run's lock: no other writer lives then."""
    stale = [*_named_like(_TEMPORARY, output_dir), *_named_like(_LEFT, output_dir)]
    for path in stale:
        _remove(path)
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
        _remove(disk.rename(path, output_dir / f".{path.name}.{uuid.uuid4().hex[:8]}.old"))
    return removed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def point_best(output_dir: Path, checkpoint: Path) -> None:
    """Make ``best`` a link to a checkpoint, replaced in one rename. **Rank 0 only.**"""
    temporary = output_dir / f".{BEST_LINK}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.symlink_to(checkpoint.name)
    disk.rename(temporary, output_dir / BEST_LINK)


class AsyncWriter:
    """Writes one checkpoint at a time in a thread. **Rank 0 only.** A failure is raised by the next call, never lost."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def submit(self, snapshot: Snapshot, after: Callable[[Path], None]) -> None:
        """Start writing; first waits for the one before. ``after`` gets the published and verified checkpoint."""
        self.wait()
        self.thread = threading.Thread(target=self._write, args=(snapshot, after), name="checkpoint")
        self.thread.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _write(self, snapshot: Snapshot, after: Callable[[Path], None]) -> None:
        try:
            path = write_checkpoint(self.output_dir, snapshot)
            reason = verify(path)
            if reason is not None:
                raise OSError(f"{path}: what was just written cannot be read back: {reason}")
            after(path)
        except BaseException as error:  # carried to the training thread and raised there
            self.error = error
