"""What rank 0 finds in the output folder, and what follows: a new run, or the continuation of one that is there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import batching, checkpoint, rundir
from ringtune.train.config import TrainConfig, refuse_changes
from ringtune.train.contract import CHECKPOINT_PREFIX, FINISHED_FILE, UsageError, holds_run

LATEST = "latest"


@dataclass(frozen=True)
class Opening:
    """What all ranks must know before they load anything."""

    config: TrainConfig  # with the batch sizes of this run filled in
    batching: batching.Batching
    checkpoint: Path | None  # to go on from
    step: int  # of that checkpoint, 0 without one
    finished_step: int  # 0 unless the run has finished

    @property
    def done(self) -> int:
        """Steps that the run has."""
        return max(self.step, self.finished_step)


def open_run(
    config: TrainConfig, world_size: int, lock: rundir.RunLock, report: Callable[[str], None], *, dry_run: bool
) -> Opening:
    """Look into the output folder and settle what this run is. **Rank 0 only**; changes nothing but takes the lock.

    Raises UsageError for a folder that cannot be used, or settings that do not fit the run in it.
    """
    folder = Path(config.output_dir)
    is_there = holds_run(folder)
    if not dry_run:
        lock.acquire()
    goes_on = is_there and not config.overwrite_output_dir
    found, step, saved = _find(config, folder, report, goes_on=goes_on)
    per_device = config.per_device_train_batch_size
    if saved is not None:
        _refuse_other_batch(config, saved, world_size)
        config = _take_over(config, saved)
        refuse_changes(saved, config)
    batch = batching.resolve(
        world_size,
        config.mode,
        config.global_batch_size,
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        config.num_shards,
    )
    config = dataclasses.replace(
        config, global_batch_size=batch.global_batch_size, per_device_train_batch_size=per_device
    )
    if config.mode == "exact":
        config = dataclasses.replace(config, num_shards=batch.num_shards)
    if found is not None:
        report(f"going on from {found}")
    return Opening(config, batch, found, step, _finished_step(folder) if goes_on else 0)


def _find(
    config: TrainConfig, folder: Path, report: Callable[[str], None], *, goes_on: bool
) -> tuple[Path | None, int, Mapping[str, Any] | None]:
    """Return the checkpoint to go on from, its step and the configuration of its run; None and 0 for what is not."""
    found: Path | None = None
    if config.resume_from_checkpoint not in (None, LATEST):
        found = Path(str(config.resume_from_checkpoint))
        return _with_state(found)
    saved: Mapping[str, Any] | None = None
    if goes_on:
        found, skipped = checkpoint.find_latest(folder)
        for each in skipped:
            report(f"skipped {each.path}: {each.reason}")
        if found is None:
            _refuse_to_lose(folder, skipped)
            saved = rundir.read_config(folder)
    if config.resume_from_checkpoint == LATEST and found is None:
        raise UsageError(
            f"--resume_from_checkpoint {LATEST}",
            f"{folder} has no whole checkpoint",
            legal="a folder with one",
            todo="leave the flag out to start from the beginning",
        )
    return _with_state(found) if found is not None else (None, 0, saved)


def _with_state(found: Path) -> tuple[Path, int, Mapping[str, Any]]:
    state = checkpoint.load_state(found)
    return found, state.step, state.config


def _refuse_to_lose(folder: Path, skipped: Sequence[checkpoint.Skipped]) -> None:
    """Raise UsageError if there are checkpoints and none is whole: a new start would remove what may be restored."""
    damaged = [each for each in skipped if each.path.name.startswith(CHECKPOINT_PREFIX)]
    if damaged:
        raise UsageError(
            f"--output_dir {folder}",
            f"none of its {len(damaged)} checkpoint(s) is whole: {damaged[0].path.name}: {damaged[0].reason}",
            legal="a whole one to go on from",
            todo="restore one, or start again with --overwrite_output_dir",
        )


def _refuse_other_batch(config: TrainConfig, saved: Mapping[str, Any], world_size: int) -> None:
    """Raise UsageError for batch sizes per rank that are new and do not make the global batch size of the run.

    The same ones as before are taken for those of the first start, whose product the run keeps at any world size.
    """
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    per_device, accumulation = (getattr(config, name) for name in names)
    is_new = any(getattr(config, name) not in (None, saved.get(name)) for name in names)
    if config.global_batch_size is not None or per_device is None or not is_new:
        return
    found = per_device * (accumulation or 1) * world_size
    if found != saved.get("global_batch_size"):
        raise UsageError(
            "--per_device_train_batch_size",
            f"{per_device} makes {found} rows a step at {world_size} rank(s); the run to be resumed has "
            f"{saved.get('global_batch_size')}",
            legal="the global batch size of the run",
            todo="set it back or leave it out, or start a new run with another --output_dir",
        )


def _take_over(config: TrainConfig, saved: Mapping[str, Any]) -> TrainConfig:
    """Fill the batch sizes that are not set from the run to go on with: they belong to the run, not to the ranks."""
    changes: dict[str, Any] = {}
    if config.global_batch_size is None:
        changes["global_batch_size"] = saved.get("global_batch_size")
        # Given per rank, they held for the world size of that time; the product is what the run keeps.
        changes["per_device_train_batch_size"] = None
    if config.num_shards is None:
        changes["num_shards"] = saved.get("num_shards")
    return dataclasses.replace(config, **changes)


def _finished_step(folder: Path) -> int:
    """Return the step at which the run in a folder finished, 0 if it has not."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # damaged: the checkpoint knows how far the run is
        return int(json.loads((folder / FINISHED_FILE).read_text())["step"])
    return 0
