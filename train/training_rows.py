"""The rows of a training run beside those of its own files: rows with predicted labels, and those of an earlier run.

They are splits like others while they are read; their features stand behind those of the training rows, in one table:
first the training rows, then those of ``--pseudo_file``, then those that ``--replay`` draws from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ringtune.train import data, file_flags, pseudo, replay
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.order import DataOrder, derive_seed
from ringtune.train.replay import ReplayOrder
from ringtune.train.source import Source
from ringtune.train.task import Task
from ringtune.train.task.multilabel import MultiLabel
from ringtune.train.task.sequence import WEIGHTS
from ringtune.train.tokens import Features

PSEUDO, REPLAY = "pseudo", "replay"
PARTS = (data.TRAIN, PSEUDO, REPLAY)  # in the order of their features
PARTS_FILE = "parts.json"  # beside the table: features of each part, if there is more than one


def open_splits(config: TrainConfig) -> dict[str, Source]:
    """Return the rows of each split, those that are trained on first. Raises UsageError."""
    if not config.dataset_name:
        file_flags.refuse_of_data_sets(config, config.train_file or f"--task_name {config.task_name}")
    else:
        file_flags.refuse_configuration(config, config.dataset_name)
    found = data.open_splits(config)
    parts = {data.TRAIN: found.pop(data.TRAIN)}
    if config.pseudo_file:
        parts[PSEUDO] = pseudo.open_rows(config)
    file_flags.refuse_unused(config, [*parts.values(), *found.values()])  # not what an earlier run read otherwise
    if config.replay:
        parts[REPLAY] = replay.open_rows(config)
    return parts | found


def choose_columns(config: TrainConfig, sources: Mapping[str, Source], start: Task | None) -> dict[str, Columns]:
    """Return the columns to read of each split. start: the task of the run to start from. Raises UsageError."""
    config = _as_started(config, sources[data.TRAIN], start)
    own = {name: each for name, each in sources.items() if name not in (PSEUDO, REPLAY)}
    found = data.choose_columns(config, own)
    if PSEUDO in sources:
        found[PSEUDO] = pseudo.choose_columns(found[data.TRAIN], sources[PSEUDO])
    if REPLAY in sources:
        earlier = replay.earlier_config(config)
        found[REPLAY] = data.choose_columns(earlier, {data.TRAIN: sources[REPLAY]})[data.TRAIN]
        mine, theirs = found[data.TRAIN], found[REPLAY]
        if (mine.form, mine.label is None, mine.sets is None) != (
            theirs.form,
            theirs.label is None,
            theirs.sets is None,
        ):
            raise replay.other_kind(config, sources[data.TRAIN].where)
    return found


def _as_started(config: TrainConfig, train: Source, start: Task | None) -> TrainConfig:
    """Return the settings with the separator of labels that the earlier run had, where it can be meant."""
    sets = start.columns.sets if isinstance(start, MultiLabel) and start.columns else None
    if sets is None or sets.separator is None or config.label_separator or config.label_column_name in train.lists:
        return config
    return replace(config, label_separator=sets.separator)


def digest(config: TrainConfig, sources: Mapping[str, Source], start: Task | None) -> str:
    """Return a sha256 over the content of all splits and all that decides what is made of them. **Pure.**"""
    found = data.digest(config, sources)
    more: dict[str, Any] = {}
    if start is not None:
        more["start"] = start.to_json()
    if config.pseudo_file:
        more["pseudo_weight"] = config.pseudo_weight
    if config.replay:
        rows = replay.settings_of_rows(config)
        more["replay"] = {name: value for name, value in rows.items() if name != "train_file"}  # its content counts
    return hashlib.sha256(json.dumps([found, more], sort_keys=True).encode()).hexdigest() if more else found


def sampling(config: TrainConfig, split: str) -> tuple[int | None, int]:
    """Return how many rows of a split are used, None for all, and the seed that draws them."""
    if split == PSEUDO:
        return None, 0
    if split == REPLAY:
        earlier = replay.earlier_config(config)
        return earlier.max_train_samples, derive_seed("sample", earlier.seed, data.TRAIN)
    return data.row_limit(config, split), derive_seed("sample", config.seed, split)


def weighed(config: TrainConfig, split: str, features: Features) -> Features:
    """Return features with what each counts in the loss, where not all training rows count the same. **Pure.**"""
    if not config.pseudo_file or split not in PARTS:
        return features
    weight = config.pseudo_weight if split == PSEUDO else 1.0
    weights = np.full(features.num_features, weight, dtype=np.float32)
    return replace(features, feature_columns={**features.feature_columns, WEIGHTS: weights})


def read_parts(folder: Path) -> dict[str, int]:
    """Return the features of each part of the training table in a folder of the cache; nothing if it is one part."""
    path = folder / PARTS_FILE
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def shares(config: TrainConfig, parts: Mapping[str, int], order: DataOrder) -> list[tuple[int, float]]:
    """Return the features of each part, in their order, and how much of the loss each has: how often an epoch draws it,
    times its weight; nothing if there is one part. **Pure.**"""
    drawn = order.replayed_per_epoch if isinstance(order, ReplayOrder) else 0
    factor = {data.TRAIN: 1.0, PSEUDO: config.pseudo_weight, REPLAY: drawn / max(1, parts.get(REPLAY, 0))}
    return [(parts[name], factor[name]) for name in PARTS if name in parts]


def describe(
    config: TrainConfig, sources: Mapping[str, Source], columns: Mapping[str, Columns], parts: Mapping[str, int]
) -> Iterator[str]:
    """Give a line about each part beside the training rows. parts: features of each. **Pure.**"""
    for split in (PSEUDO, REPLAY):
        if split not in sources:
            continue
        read = f"{sources[split].where}: {columns[split].describe(sources[split].names)}"
        if split == PSEUDO:
            yield f"{read}; {parts[PSEUDO]} rows more to train on, each counts {config.pseudo_weight:g} in the loss"
        else:
            yield f"{read}; --replay draws from {parts[REPLAY]} rows"
