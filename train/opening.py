"""What rank 0 finds in the output folder, and what follows: a new run, or the continuation of one that is there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import batching, checkpoint, disk, final, metrics, pruning, publish, rundir, trial
from ringtune.train.checkpoint import RunState
from ringtune.train.config import TrainConfig, refuse_changes, to_yaml
from ringtune.train.contract import (
    BEST_LINK,
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    FINISHED_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    UsageError,
    holds_run,
)
from ringtune.train.earlier import INIT_FROM, REPLAY, split_replay

LATEST = "latest"


@dataclass(frozen=True)
class Opening:
    """What all ranks must know before they load anything."""

    config: TrainConfig  # with the batch sizes of this run filled in
    batching: batching.Batching
    checkpoint: Path | None  # to go on from
    step: int  # of that checkpoint, 0 without one
    finished_step: int  # 0 unless the run has finished
    best: Path | None  # the checkpoint with the best score before that one
    best_is_lost: str  # why it is not there, "" if it is or there is none
    damaged: tuple[Path, ...]  # checkpoints that are not whole
    trial: trial.Trial | None  # of a search

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
    if holds_run(folder):  # before anything is written into a folder that is not ours
        _refuse_to_clear(config, folder)
    if not dry_run:
        lock.acquire()
    # Looked at only now: until the lock was ours, another run may have written there.
    goes_on = holds_run(folder) and not config.overwrite_output_dir
    found, state, damaged = _find(config, folder, report, goes_on=goes_on)
    saved = state.config if state is not None else rundir.read_config(folder) if goes_on else None
    per_device = config.per_device_train_batch_size
    if saved is not None:
        _refuse_other_batch(config, saved, world_size)
        config = _take_over(config, saved)
        refuse_changes(saved, config)
    if config.keep_schedule and state is None:
        report("--keep_schedule true has no effect: no checkpoint is there, and a new run has no earlier schedule")
    batch = batching.resolve(
        world_size,
        config.mode,
        config.global_batch_size,
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        config.num_shards,
    )
    config = dataclasses.replace(config, global_batch_size=batch.global_batch_size)
    config = dataclasses.replace(config, per_device_train_batch_size=per_device)
    if config.mode == "exact":
        config = dataclasses.replace(config, num_shards=batch.num_shards)
    return Opening(
        config,
        batch,
        found,
        state.step if state is not None else 0,
        _finished_step(folder, found, report) if goes_on and not _names_checkpoint(config) else 0,
        *_find_best(found, state),
        damaged,
        pruning.report_trial(trial.read(folder), report),
    )


def _refuse_to_clear(config: TrainConfig, folder: Path) -> None:
    """Raise UsageError if starting again in a folder would remove what the new run reads."""
    if not config.overwrite_output_dir:
        return
    replayed = split_replay(config.replay)[0] if config.replay else None
    models = {"--model_name_or_path": config.model_name_or_path, INIT_FROM: config.init_from, REPLAY: replayed}
    names = ("train_file", "validation_file", "test_file", "pseudo_file", "peft_config")
    rundir.refuse_to_clear(folder, models, {f"--{name}": getattr(config, name) for name in names})


def _find(
    config: TrainConfig, folder: Path, report: Callable[[str], None], *, goes_on: bool
) -> tuple[Path | None, RunState | None, tuple[Path, ...]]:
    """Return the checkpoint to go on from and its state, None for what is not, and those that are damaged."""
    found, skipped = checkpoint.find_latest(folder) if goes_on else (None, [])
    for each in skipped:
        report(f"skipped {each.path}: {each.reason}")
    damaged = tuple(each.path for each in skipped)
    if _names_checkpoint(config):
        named = Path(str(config.resume_from_checkpoint))
        named = named.resolve() if named.is_symlink() else named  # ``best`` is another one's name
        return named, checkpoint.load_state(named), damaged
    if found is None:
        _refuse_to_lose(folder, skipped)
    if config.resume_from_checkpoint == LATEST and found is None:
        raise UsageError(
            f"--resume_from_checkpoint {LATEST}",
            f"{folder} has no whole checkpoint",
            legal="a folder with one",
            todo="leave the flag out to start from the beginning",
        )
    return found, checkpoint.read_state(found) if found is not None else None, damaged


def _names_checkpoint(config: TrainConfig) -> bool:
    """Return whether a run is to begin at a checkpoint that the user names. **Pure.**"""
    return config.resume_from_checkpoint not in (None, LATEST)


def _find_best(found: Path | None, state: RunState | None) -> tuple[Path | None, str]:
    """Return the checkpoint with the best score before the one to go on from, or why it is not there."""
    if found is None or state is None or not state.best.step:
        return None, ""
    path = found.with_name(f"{CHECKPOINT_PREFIX}{state.best.step}")
    reason = None if path == found else checkpoint.verify(path) if path.exists() else "it is missing"
    return (path, "") if reason is None else (None, f"{path}: {reason}")


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


def _finished_step(folder: Path, found: Path | None, report: Callable[[str], None]) -> int:
    """Return the step at which the run in a folder finished, 0 if it has not, or if its final model is to be written
    again from a checkpoint. Raises UsageError if there is none to write it from."""
    if not any((folder / name).exists() for name in (FINISHED_FILE, MANIFEST_FILE)):
        return 0
    reason = final.verify(folder)
    if reason is None:
        facts = json.loads((folder / FINISHED_FILE).read_bytes())
        wrong = metrics.difference(folder / METRICS_FILE, facts["metrics"])
        if wrong:
            report(wrong)
        return int(facts["step"])
    if found is None:
        raise UsageError(
            f"--output_dir {folder}",
            f"its final model is not whole: {reason}; it has no checkpoint to write it from again",
            legal="files as ringtune wrote them",
            todo="restore them, or start again with --overwrite_output_dir",
        )
    report(f"the final model in {folder} is not whole: {reason}; it is written again")
    return 0


def sign(folder: Path, config: TrainConfig, opening: Opening, report: Callable[[str], None]) -> None:
    """Make the folder this run's. Only now, when everything is checked, is anything of an earlier run removed.

    Killed at any line, the same command does it again.
    """
    found, best = opening.checkpoint, opening.best
    is_here = found is not None and found.resolve().parent == folder.resolve()
    if not is_here and (found is None or config.overwrite_output_dir):
        rundir.clear(folder)
    final.withdraw(folder)
    publish.remove(folder / PREDICTIONS_FILE)  # the next model's are written before it, unless the run is pruned
    aside = rundir.set_aside(folder, opening.step if is_here else 0, opening.damaged)
    if aside is not None:
        names = ", ".join(sorted(each.name for each in aside.glob(f"{CHECKPOINT_PREFIX}*")))
        report(f"{folder}: {names} set aside in {aside.name}")
    if found is not None and not is_here:
        rundir.bring(found, opening.step, best, folder)
    if best is not None:
        checkpoint.point_best(folder, folder / best.name)
    elif not (folder / BEST_LINK).exists():  # it points to what was set aside
        publish.remove(folder / BEST_LINK)
    # Overwriting and resuming are requests of one command, not settings of the run: from its file the run goes on.
    kept = dataclasses.replace(config, overwrite_output_dir=False, resume_from_checkpoint=None)
    disk.replace_text(folder / CONFIG_FILE, to_yaml(kept))
