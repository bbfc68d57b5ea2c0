"""From files to memory-mapped features: one rank of each host tokenises, the others wait for it.

The features of all splits are one folder in the cache, named by everything they depend on. Files are hashed at every
start and read only when that folder is not there.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.train import (
    data,
    findings,
    init_from,
    publish,
    several,
    slices,
    table,
    task,
    training_rows,
    unused_settings,
)
from ringtune.train.columns import Columns, shown_names
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import TASK_FILE, UsageError, cache_folder
from ringtune.train.slices import SliceColumn
from ringtune.train.source import Source
from ringtune.train.stop import StopFlag
from ringtune.train.table import open_table
from ringtune.train.task import Task
from ringtune.train.tokenising import FINDINGS_FILE, Tokenising, slices_file
from ringtune.train.tokens import TYPES, Features, tokenizer_digest


@dataclass(frozen=True)
class Tables:
    """The features of a run, read-only and memory-mapped on every rank."""

    task: Task
    train: Features
    validation: Mapping[str, Features]  # by the suffix of its scores: "" or, for MNLI, "" and "mm"
    test: Features | None
    slices: Mapping[str, Sequence[SliceColumn]]  # of the rows of each of `validation`
    digest: str  # of the rows as read
    report: tuple[str, ...]  # what is read, learnt, cut and not used, a line each
    rows_digest: str = ""  # of the training rows' content alone
    parts: Mapping[str, int] = field(default_factory=dict)  # features of `train` by part, if there is more than one

    @property
    def num_replayed(self) -> int:
        """Features of `train`, the last ones, that are drawn from beside those that an epoch visits."""
        return self.parts.get(training_rows.REPLAY, 0)

    @property
    def num_new(self) -> int:
        """Features that an epoch visits."""
        return self.train.num_features - self.num_replayed


@dataclass(frozen=True)
class _Prepared:
    """What the tokenising rank of a host reports to the others."""

    task: Task
    key: str  # name of the features' folder in the cache of each host
    splits: tuple[str, ...]
    digest: str
    report: tuple[str, ...]
    rows_digest: str
    parts: Mapping[str, int]


def prepare(config: TrainConfig, tokenizer: Any, comm: Comm, stop: StopFlag) -> Tables:
    """Return the run's features; tokenises at most once per host. **Collective.**

    Raises UsageError for rows that cannot be used, StopRequested if a stop is requested meanwhile; a killed tokeniser
    leaves only a temporary folder.
    """

    def work() -> _Prepared | None:
        return _prepare(config, tokenizer, stop, shown=comm.rank == 0) if comm.local_rank == 0 else None

    mine = comm.work_together(work, stop, "tables/prepare")
    hosts = [each for each in comm.gather_values(mine, "tables/prepared") if each is not None]
    first = hosts[0]
    for each in hosts:
        if (each.digest, each.key) != (first.digest, first.key):
            raise UsageError(
                "data",
                "hosts read different rows under the same names",
                legal="the same files on every host",
                todo="copy the files, or put them on a shared file system",
            )
    folder = _folder(config, first.key)  # this host's own: its cache may be elsewhere than that of rank 0's host
    opened = {split: open_table(folder, split) for split in first.splits if split not in training_rows.PARTS[1:]}
    validation = {
        split.removeprefix(data.VALIDATION): each for split, each in opened.items() if split.startswith(data.VALIDATION)
    }
    sliced = {
        suffix: slices.from_bytes((folder / slices_file(data.VALIDATION + suffix)).read_bytes())
        for suffix in validation
    }
    return Tables(
        first.task,
        opened[data.TRAIN],
        validation,
        opened.get(data.TEST),
        sliced,
        first.digest,
        first.report,
        first.rows_digest,
        first.parts,
    )


def _folder(config: TrainConfig, key: str) -> Path:
    return cache_folder(config.cache_dir) / "tokens" / key


def _prepare(config: TrainConfig, tokenizer: Any, stop: StopFlag, *, shown: bool) -> _Prepared:
    start = init_from.start_task(config)
    sources = training_rows.open_splits(config)
    columns = training_rows.choose_columns(config, sources, start)
    digest = training_rows.digest(config, sources, start)
    has_types = TYPES in tokenizer.model_input_names
    parts = [table.LAYOUT, digest, tokenizer_digest(tokenizer), config.row_tokens, has_types, config.slice_by]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    folder = _folder(config, key)
    damage = publish.verify_folder(folder, (TASK_FILE, FINDINGS_FILE))
    was_there = folder.exists()
    if damage is not None:
        try:
            publish.remove_abandoned(folder.parent)
            with publish.new_folder(folder) as new:
                Tokenising(config, sources, columns, tokenizer, stop, shown, start).run(new)
        except OSError as error:
            raise _cache_error(error, cache_folder(config.cache_dir)) from error
    found = task.read(folder)
    assert found is not None  # verified above
    report = _report(config, sources, columns, found[0], (folder / FINDINGS_FILE).read_bytes())
    features = training_rows.read_parts(folder)
    report += training_rows.describe(config, sources, columns, features)
    report += unused_settings.describe(config, found[0])
    if start is not None:
        report.append(init_from.describe(start, found[0], str(config.init_from)))
    if damage is not None and was_there:
        report.append(f"cache {folder}: {damage}; the rows were tokenised again")
    rows_digest = sources[data.TRAIN].digest
    return _Prepared(found[0], key, tuple(sources), digest, tuple(report), rows_digest, features)


def _report(
    config: TrainConfig,
    sources: Mapping[str, Source],
    columns: Mapping[str, Columns],
    found: Task,
    findings_bytes: bytes,
) -> list[str]:
    """Return what a user should know of the rows, a line each; the names of the files are those of this run."""
    splits, label_note = findings.from_bytes(findings_bytes)
    train = sources[data.TRAIN]
    lines = [f"{train.where}: {columns[data.TRAIN].describe(train.names, found.label_note())}"]
    if label_note:
        lines.append(f"{train.where}: {label_note}")
    for split, source in sources.items():
        read = several.describe(source.files, splits[split].rows_of_files)
        found_out = splits[split].lines(config.row_tokens)
        if columns[split].sliced:
            lines.append(f"{source.where}: scored as a whole and by {shown_names(columns[split].sliced)}")
        lines += [f"{source.where}: {line}" for line in (*read, *source.notes, *found_out)]
    return lines


def _cache_error(error: OSError, cache: Path) -> Exception:
    """Return the error of a cache that cannot take the features, in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UsageError(
            f"--cache_dir {cache}",
            "there is no room left",
            legal="room for the rows and their tokens",
            todo="free space, choose another, or set $RINGTUNE_CACHE",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return UsageError(
            f"--cache_dir {cache}",
            str(error.strerror),
            legal="a folder one may write to",
            todo="choose another, or set $RINGTUNE_CACHE",
        )
    return error
