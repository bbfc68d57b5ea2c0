"""From files to memory-mapped features: one rank of each host tokenises, the others wait for it.

The features of all splits are one folder in the cache, named by everything they depend on. Files are hashed at every
start and read only when that folder is not there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ringtune.train import data, findings, publish, several, slices, table, task
from ringtune.train.columns import Columns, shown_names
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import TASK_FILE, StopRequested, UsageError, cache_folder
from ringtune.train.findings import RowHashes, SplitFindings, count_known, text_hashes
from ringtune.train.order import derive_seed
from ringtune.train.progress import Progress
from ringtune.train.rows import RowFile, sample, texts_of, write_rows
from ringtune.train.shapes import TEXT
from ringtune.train.slices import SliceColumn
from ringtune.train.source import Source, no_rows, refuse_errors
from ringtune.train.stop import StopFlag
from ringtune.train.table import TableWriter, open_table
from ringtune.train.task import Task
from ringtune.train.task.label_names import LabelNames
from ringtune.train.task.labels import LabelColumn
from ringtune.train.task.tags import TagColumn
from ringtune.train.tokens import TYPES, Features, tokenizer_digest, uncut_lengths

_ROWS = "rows"  # folder for the rows while they are tokenised
FINDINGS_FILE = "findings.json"


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


@dataclass(frozen=True)
class _Prepared:
    """What the tokenising rank of a host reports to the others."""

    task: Task
    key: str  # name of the features' folder in the cache of each host
    splits: tuple[str, ...]
    digest: str
    report: tuple[str, ...]


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
    opened = {split: open_table(folder, split) for split in first.splits}
    validation = {
        split.removeprefix(data.VALIDATION): each for split, each in opened.items() if split.startswith(data.VALIDATION)
    }
    sliced = {
        suffix: slices.from_bytes((folder / _slices_file(data.VALIDATION + suffix)).read_bytes())
        for suffix in validation
    }
    return Tables(first.task, opened[data.TRAIN], validation, opened.get(data.TEST), sliced, first.digest, first.report)


def _slices_file(split: str) -> str:
    return f"{split}.slices.json"


def _folder(config: TrainConfig, key: str) -> Path:
    return cache_folder(config.cache_dir) / "tokens" / key


def _prepare(config: TrainConfig, tokenizer: Any, stop: StopFlag, *, shown: bool) -> _Prepared:
    sources = data.open_splits(config)
    columns = data.choose_columns(config, sources)
    digest = data.digest(config, sources)
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
                _Tokenising(config, sources, columns, tokenizer, stop, shown).run(new)
        except OSError as error:
            raise _cache_error(error, cache_folder(config.cache_dir)) from error
    found = task.read(folder)
    assert found is not None  # verified above
    report = _report(config, sources, columns, found[0], (folder / FINDINGS_FILE).read_bytes())
    if damage is not None and was_there:
        report.append(f"cache {folder}: {damage}; the rows were tokenised again")
    return _Prepared(found[0], key, tuple(sources), digest, tuple(report))


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


@dataclass(frozen=True)
class _Tokenising:
    """The way of all splits from their sources to features."""

    config: TrainConfig
    sources: Mapping[str, Source]
    columns: Mapping[str, Columns]
    tokenizer: Any
    stop: StopFlag
    shown: bool

    def run(self, new: publish.NewFolder) -> None:
        """Write features, task and findings into the new folder."""
        rows = new.path / _ROWS
        rows.mkdir()
        for split in self.sources:
            self._read(split, rows / split)
        files = {split: RowFile(rows / split) for split in self.sources}
        labels = self._labels(files[data.TRAIN])
        found = task.decide(self.columns[data.TRAIN], labels, self.sources[data.TRAIN].where)
        known = RowHashes()
        splits = {}
        for split, file in files.items():
            splits[split] = self._tokenise(split, found, file, TableWriter(new, split), known)
            if split.startswith(data.VALIDATION):
                new.write(_slices_file(split), slices.to_bytes(self._slices(split, file)))
        new.write(TASK_FILE, task.to_bytes(found, self.config.row_tokens))
        new.write(FINDINGS_FILE, findings.to_bytes(splits, labels.note()))
        shutil.rmtree(rows)

    def _read(self, split: str, path: Path) -> None:
        """Write the rows of a split to a file. Raises UsageError for the first that cannot be used."""
        source = self.sources[split]

        def usable() -> Any:
            for batch in source.read(self.columns[split]):
                refuse_errors(batch, source)
                yield batch

        if not write_rows(path, usable(), self.stop.is_set):
            raise no_rows(source.where)

    def _labels(self, rows: RowFile) -> LabelColumn | LabelNames | TagColumn:
        """Return the labels of all training rows, also of those that a sample leaves out."""
        source, columns = self.sources[data.TRAIN], self.columns[data.TRAIN]
        name = str(columns.label)
        regression = (
            True if self.config.task_name == "stsb" and self.config.regression is None else self.config.regression
        )
        declared = source.class_names.get(name, ())
        labels: LabelColumn | LabelNames | TagColumn
        if columns.form != TEXT:
            labels = TagColumn(name, scheme=self.config.tag_scheme, declared=declared)
        elif columns.sets is not None:
            labels = LabelNames(columns, declared=declared)
        else:
            labels = LabelColumn(name, regression=regression, declared=declared)
        for batch in rows:
            labels.add(batch.column("label"), source.places(batch))
        return labels

    def _tokenise(self, split: str, found: Task, rows: RowFile, writer: TableWriter, known: RowHashes) -> SplitFindings:
        """Write the features of a split; return what is found out. known: of the training rows, which come first."""
        source = self.sources[split]
        rows_of_files = rows.count_files(len(source.files))
        total = sum(rows_of_files)
        limit = data.row_limit(self.config, split)
        result = SplitFindings(rows_of_files=rows_of_files)
        training_rows = known.finish() if split != data.TRAIN else None
        bar = Progress(min(total, limit or total), f"tokenising {split}", unit="rows", shown=self.shown)
        for batch in sample(rows, total, limit, derive_seed("sample", self.config.seed, split)):
            if self.stop.is_set():
                raise StopRequested
            features = found.encode(batch, self.tokenizer, self.config.row_tokens)
            if split != data.TEST:
                _refuse_wrong_label(found, features, batch, source)
            self._note(result, found, features, batch)
            if training_rows is None:
                known.add(batch)
            else:
                result.num_also_in_training += count_known(text_hashes(batch), training_rows)
            writer.append(features, batch.num_rows)
            bar.update(writer.num_rows)
        writer.close()
        bar.close()
        return result

    def _slices(self, split: str, rows: RowFile) -> list[SliceColumn]:
        """Return the slice columns of the rows of a split that are used."""
        if not self.columns[split].sliced:
            return []
        limit = data.row_limit(self.config, split)
        total = sum(rows.count_files(len(self.sources[split].files)))
        used = sample(rows, total, limit, derive_seed("sample", self.config.seed, split))
        return slices.columns_of(used, self.sources[split].where)

    def _note(self, result: SplitFindings, found: Task, features: Features, batch: Any) -> None:
        """Add what is found out about a batch."""
        result.num_rows += batch.num_rows
        result.longest = max(result.longest, int(features.lengths.max()))
        full = np.unique(features.row_of[features.lengths >= self.config.row_tokens])
        if len(full) and found.cuts_rows:
            lengths = uncut_lengths(self.tokenizer, texts_of(batch.take(pa.array(full))))
            result.num_cut += int(np.count_nonzero(lengths > self.config.row_tokens))
            result.longest = max(result.longest, int(lengths.max()))
        for name, count in found.count_labels(features).items():
            result.counts[name] = result.counts.get(name, 0) + count
        for what, count in found.count_oddities(batch, features).items():
            result.oddities[what] = result.oddities.get(what, 0) + count
        labels = found.targets(features)
        if found.has_several_labels and labels is not None:
            result.num_unlabelled = (result.num_unlabelled or 0) + int((labels == 0).all(axis=1).sum())


def _refuse_wrong_label(found: Task, features: Features, batch: Any, source: Source) -> None:
    """Raise UsageError for the first row whose label is none."""
    labels = found.targets(features)
    is_label = np.zeros(int(features.num_terms.sum()), dtype=bool) if labels is None else found.has_label(labels)
    if not is_label.all():
        row = int(np.repeat(features.row_of, features.num_terms)[int(is_label.argmin())])
        place = next(source.places(batch.slice(row, 1)))
        raise found.wrong_label(place, batch.column("label")[row].as_py())
