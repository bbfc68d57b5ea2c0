"""Rows of an earlier run in every global batch: which they are, and in which order they come.

The order is a pure function of seed and step, as that of the new rows is: the world size is not an argument. Replayed
rows are drawn without replacement, round after round, in an order of their own; an epoch is one of the new rows.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ringtune.train import data, earlier
from ringtune.train.config import TrainConfig
from ringtune.train.contract import FINISHED_FILE, UsageError
from ringtune.train.order import DataOrder, derive_seed
from ringtune.train.source import Source

#: Settings of the earlier run that decide which its training rows are and what they mean.
ROW_SETTINGS = (
    "task_name",
    "dataset_name",
    "dataset_config_name",
    "train_file",
    "text_column_names",
    "label_column_name",
    "label_separator",
    "csv_delimiter",
    "csv_quoting",
    "data_field",
    "task",
    "tag_scheme",
    "choice_labels",
    "regression",
    "max_train_samples",
    "seed",
)
ROWS_DIGEST = "rows_digest"  # of finished.json and state.json: a sha256 of the training rows' content


def settings_of_rows(config: TrainConfig) -> dict[str, Any]:
    """Return what the earlier run's settings say of its training rows. Raises UsageError."""
    assert config.replay
    run, _ = earlier.split_replay(config.replay)
    where = f"{earlier.REPLAY} {run}"
    saved, task = earlier.settings_of(run, where), earlier.read_task(run, where)
    found = {name: saved[name] for name in ROW_SETTINGS if name in saved}
    if task.get("label_separator"):  # which that run may have taken over from one before it
        found["label_separator"] = task["label_separator"]
    return found


def earlier_config(config: TrainConfig) -> TrainConfig:
    """Return the settings by which the earlier run's training rows are read. Raises UsageError."""
    found = {name: None for name in ("validation_file", "test_file", "pseudo_file", "init_from", "replay", "slice_by")}
    return dataclasses.replace(config, **{**found, **settings_of_rows(config)})


def open_rows(config: TrainConfig) -> Source:
    """Return the earlier run's training rows, with a note if nobody knows whether they are what it was trained on.

    Raises UsageError for rows that are not there, or that have changed since.
    """
    assert config.replay
    run, _ = earlier.split_replay(config.replay)
    try:
        found = data.open_splits(earlier_config(config))[data.TRAIN]
    except UsageError as error:
        raise UsageError(
            f"{earlier.REPLAY} {run}: {error.where}", error.wrong, legal=error.legal, todo=error.todo
        ) from None
    digest = _saved_digest(Path(run).expanduser())
    if digest is None:
        note = f"{run} was trained before the digest of its rows was kept: whether these are the same was not checked"
        return dataclasses.replace(found, notes=(*found.notes, note))
    if digest != found.digest:
        raise UsageError(
            f"{earlier.REPLAY} {run}",
            f"{found.where} is not what it was when that run was trained",
            legal="the same rows, byte for byte",
            todo="put them back",
        )
    return found


def other_kind(config: TrainConfig, where: str) -> UsageError:
    """Return the error of an earlier run that was trained for something else. where: the new rows."""
    run = earlier.split_replay(str(config.replay))[0]
    kind = earlier.read_task(run, f"{earlier.REPLAY} {run}")["kind"]
    return UsageError(
        f"{earlier.REPLAY} {run}",
        f"it was trained for {kind}, and the rows of {where} are of another kind, or name their labels otherwise",
        legal="a run of the same kind",
    )


def require_kind(config: TrainConfig, found: Mapping[str, Any], where: str) -> None:
    """Raise UsageError for an earlier run of another kind. found: the task of the new rows, as `Task.to_json`."""
    if not config.replay:
        return
    run = earlier.split_replay(config.replay)[0]
    task = earlier.read_task(run, f"{earlier.REPLAY} {run}")
    # How labels name a choice: all rows are read by one scheme.
    if any(task.get(name) != found.get(name) for name in ("kind", "labels_are")):
        raise other_kind(config, where)


def _saved_digest(folder: Path) -> str | None:
    """Return the digest of the rows that a run was trained on, None if it was not kept."""
    for name in (earlier.STATE_FILE, FINISHED_FILE):
        if (folder / name).is_file():
            digest = json.loads((folder / name).read_bytes()).get(ROWS_DIGEST)
            return str(digest) if digest else None
    return None


# Which rows of which step


def rows_of_step(global_batch_size: int, share: float) -> int:
    """Return how many rows of a global batch are replayed: the share of it, half a row rounded up, at least one.

    **Pure.** Raises UsageError if no new row would be left.
    """
    found = max(1, math.floor(global_batch_size * share + 0.5))
    if found >= global_batch_size:
        raise UsageError(
            earlier.REPLAY,
            f"{share:g} of a global batch of {global_batch_size} rows is all of it",
            legal="at least one new row in each",
            todo="lower the share or raise --global_batch_size",
        )
    return found


@lru_cache(maxsize=2)
def round_order(seed: int, number: int, num_rows: int) -> np.ndarray:
    """Return the permutation of ``range(num_rows)`` in which a round visits the replayed rows, int64 [num_rows].
    **Pure.**"""
    generator = np.random.Generator(np.random.Philox(derive_seed("replay", seed, number)))
    order = generator.permutation(num_rows)
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class ReplayOrder(DataOrder):
    """The order of new rows, with earlier ones in every step.

    ``num_rows`` counts the new ones; replayed rows have the numbers behind them.
    """

    num_replayed: int = 0  # rows to draw from
    replayed_per_step: int = 0

    @property
    def new_per_step(self) -> int:
        """New rows of a step, but the last of an epoch."""
        return self.global_batch_size - self.replayed_per_step

    @property
    def note(self) -> str:
        """How many of the rows are replayed."""
        return f", {self.replayed_per_step} of them replayed,"

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers of 0-based ``step``, the new ones first. O(1) at any step of an epoch."""
        new = super().rows(step)
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = epoch * self.replayed_per_epoch + step_in_epoch * self.replayed_per_step
        return np.concatenate([new, self.num_rows + self._drawn(start, start + self._replayed_beside(len(new)))])

    @property
    def replayed_per_epoch(self) -> int:
        """Rows that are replayed in an epoch."""
        last = self._replayed_beside(self.num_rows - (self.steps_per_epoch - 1) * self.new_per_step)
        return (self.steps_per_epoch - 1) * self.replayed_per_step + last

    def _replayed_beside(self, num_new: int) -> int:
        """Return how many rows are replayed beside new ones: fewer than in other steps beside the last of an epoch."""
        return max(1, math.floor(self.replayed_per_step * num_new / self.new_per_step + 0.5))

    def _drawn(self, start: int, stop: int) -> np.ndarray:
        """Return the rows drawn from the start-th to the one before the stop-th of the whole run, int64."""
        rounds = range(start // self.num_replayed, (stop - 1) // self.num_replayed + 1)
        drawn = [round_order(self.seed, number, self.num_replayed) for number in rounds]
        first = rounds.start * self.num_replayed
        return np.asarray(np.concatenate(drawn)[start - first : stop - first])


def order_of(
    config: TrainConfig, num_new: int, num_replayed: int, global_batch_size: int, labels: np.ndarray | None
) -> DataOrder:
    """Return the order of the training rows. **Pure.** num_new, num_replayed: features. labels: as `DataOrder` has it,
    of all of them. Raises UsageError for a share that leaves no new row."""
    labels = labels if labels is None else labels[:num_new]
    if not config.replay:
        return DataOrder(config.seed, num_new, global_batch_size, labels)
    share = earlier.split_replay(config.replay)[1]
    each = rows_of_step(global_batch_size, share)
    return ReplayOrder(
        config.seed, num_new, global_batch_size, labels, num_replayed=num_replayed, replayed_per_step=each
    )
