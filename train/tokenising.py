"""From the rows of all splits to their features, written into a new folder of the cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ringtune.train import data, findings, init_from, publish, replay, slices, task, training_labels, training_rows
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import TASK_FILE, StopRequested
from ringtune.train.cut_rows import model_lengths, uncut_model_lengths
from ringtune.train.findings import RowHashes, SplitFindings, count_known, text_hashes
from ringtune.train.joined_texts import JoinedTexts
from ringtune.train.progress import Progress
from ringtune.train.rows import RowFile, sample, write_rows
from ringtune.train.slices import SliceColumn
from ringtune.train.source import Source, no_rows, refuse_errors
from ringtune.train.stop import StopFlag
from ringtune.train.table import TableWriter
from ringtune.train.task import Task
from ringtune.train.tokens import Features

_ROWS = "rows"  # folder for the rows while they are tokenised
FINDINGS_FILE = "findings.json"


def slices_file(split: str) -> str:
    """Return the name of the file with the slice columns of a split. **Pure.**"""
    return f"{split}.slices.json"


@dataclass(frozen=True)
class Tokenising:
    """The way of all splits from their sources to features."""

    config: TrainConfig
    sources: Mapping[str, Source]
    columns: Mapping[str, Columns]
    tokenizer: Any
    stop: StopFlag
    shown: bool
    start: Task | None = None  # of the run to start from

    def run(self, new: publish.NewFolder) -> None:
        """Write features, task and findings into the new folder."""
        rows = new.path / _ROWS
        rows.mkdir()
        for split in self.sources:
            self._read(split, rows / split)
        files = {split: RowFile(rows / split) for split in self.sources}
        labels = training_labels.read(self.config, self.tokenizer, self.sources, self.columns[data.TRAIN], files)
        where = self.sources[data.TRAIN].where
        found = init_from.decide(self.columns[data.TRAIN], labels, where, self.start, self.config.init_from)
        replay.require_kind(self.config, found.to_json(), where)
        found = task.in_windows(found, self.config.window_stride, self.config.window_pooling)
        known = RowHashes()
        splits = {}
        train = TableWriter(new, data.TRAIN)  # of all rows that are trained on
        parts = {}
        for split, file in files.items():
            writer = train if split in training_rows.PARTS else TableWriter(new, split)
            before = writer.num_features
            splits[split] = self._tokenise(split, found, file, writer, known)
            if writer is train:
                parts[split] = train.num_features - before
                if split != data.TRAIN:
                    splits[split].counts.clear()  # that some classes are rare there is no finding
            else:
                writer.close()
            if split.startswith(data.VALIDATION):
                new.write(slices_file(split), slices.to_bytes(self._slices(split, file)))
        train.close()
        if len(parts) > 1:
            new.write(training_rows.PARTS_FILE, json.dumps(parts).encode())
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

    def _tokenise(self, split: str, found: Task, rows: RowFile, writer: TableWriter, known: RowHashes) -> SplitFindings:
        """Write the features of a split; return what is found out. known: of the rows that are trained on, which come
        first."""
        source = self.sources[split]
        rows_of_files = rows.count_files(len(source.files))
        total = sum(rows_of_files)
        limit, seed = training_rows.sampling(self.config, split)
        result = SplitFindings(rows_of_files=rows_of_files)
        learnt = known.finish() if split != data.TRAIN else None
        texts = JoinedTexts(found, self.config.row_tokens)
        bar = Progress(min(total, limit or total), f"tokenising {split}", unit="rows", shown=self.shown)
        for batch in sample(rows, total, limit, seed):
            if self.stop.is_set():
                raise StopRequested
            features = found.encode(batch, self.tokenizer, self.config.row_tokens)
            if split != data.TEST:
                _refuse_wrong_label(found, features, batch, source)
            self._note(result, found, features, batch)
            if learnt is not None:
                result.num_also_in_training += count_known(text_hashes(texts.hashed(batch)), learnt)
            if split in training_rows.PARTS:
                known.add(texts.hashed(batch))
            writer.append(
                training_rows.weighed(self.config, split, texts.add(features, batch.num_rows)), batch.num_rows
            )
            bar.update(result.num_rows)
        rest = texts.finish(source.where)
        if rest is not None:
            writer.append(training_rows.weighed(self.config, split, rest), 0)
        bar.close()
        return result

    def _slices(self, split: str, rows: RowFile) -> list[SliceColumn]:
        """Return the slice columns of the rows of a split that are used."""
        if not self.columns[split].sliced:
            return []
        total = sum(rows.count_files(len(self.sources[split].files)))
        used = sample(rows, total, *training_rows.sampling(self.config, split))
        return slices.columns_of(used, self.sources[split].where)

    def _note(self, result: SplitFindings, found: Task, features: Features, batch: Any) -> None:
        """Add what is found out about a batch."""
        result.num_rows += batch.num_rows
        lengths = model_lengths(features)
        result.longest = max(result.longest, int(lengths.max(initial=0)))
        full = np.unique(features.row_of[lengths >= self.config.row_tokens])
        if len(full) and found.cuts_rows:
            lengths = uncut_model_lengths(self.tokenizer, batch.take(pa.array(full)))
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
