"""From files to their rows: see `source` for what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from ringtune.train import arrow_rows, csv_rule, formats, publish, several
from ringtune.train.columns import Columns
from ringtune.train.csv_rule import AUTO, CsvRule
from ringtune.train.files import Files
from ringtune.train.formats import LineFile
from ringtune.train.source import Place, Source, row_batches

_CSV_KINDS = ("csv", "tsv")


def open_files(
    files: Files,
    *,
    text_name: str = "text",
    label_name: str = formats.TAGS,
    delimiter: str = AUTO,
    quoting: str = AUTO,
    data_field: str | None = None,
) -> Source:
    """Return the rows of files as one source. Raises UsageError for files that cannot be used.

    text_name: the name of a plain text file's one column, and of the first of a column file, whose last is label_name.
    delimiter, quoting: of CSV or TSV files, as `csv_rule.decide`
    takes them. data_field: of a JSON file that is one object, the field with its rows.
    """
    names = _names(files)
    rule, notes = None, files.notes
    if files.kind not in formats.TABLE_KINDS:
        for path, name in zip(files.paths, names, strict=True):
            formats.require_text(path, name)
    if files.kind in _CSV_KINDS:
        rule, more = _decide(files, delimiter, quoting)
        notes += more

    def open_one(path: Path, name: str) -> Source:
        if files.kind in formats.TABLE_KINDS:
            return arrow_rows.open_table(path, files.kind, name, publish.file_sha256(path))
        how: dict[str, Any] = {"label_name": label_name, "rule": rule, "data_field": data_field}
        return _line_source(LineFile(path, files.kind, name, text_name, **how))

    sources = [open_one(path, name) for path, name in zip(files.paths, names, strict=True)]
    found = several.join(sources, files.where, holds_json=files.kind in formats.JSON_KINDS)
    return replace(found, notes=(*notes, *found.notes), kind=files.kind)


def quoting_of_splits(splits: Mapping[str, Files], delimiter: str, quoting: str) -> dict[str, tuple[Files, str]]:
    """Return the files of each split of a data set, and how they are read as to quotes. delimiter, quoting: as asked.

    What a quote is does not change from split to split: where one split's files can only be read with quotes as
    characters, so are the others of its format, and a note with these says so. Raises UsageError as `open_files` does.
    """
    tables = {split: each for split, each in splits.items() if each.kind in _CSV_KINDS and quoting == AUTO}
    by_quotes = {split: _decide(each, delimiter, AUTO)[0].has_quotes for split, each in tables.items()}
    tellers = {each.kind: each.where for split, each in tables.items() if not by_quotes[split]}
    found = {split: (each, quoting) for split, each in splits.items()}
    for split, each in tables.items():
        if by_quotes[split] and each.kind in tellers:
            note = f"quotes are characters of its texts, as in {tellers[each.kind]} (--csv_quoting none)"
            found[split] = replace(each, notes=(*each.notes, note)), "none"
    return found


def _decide(files: Files, delimiter: str, quoting: str) -> tuple[CsvRule, tuple[str, ...]]:
    named = list(zip(_names(files), files.paths, strict=True))
    return csv_rule.decide(named, files.kind, files.where, delimiter=delimiter, quoting=quoting)


def _names(files: Files) -> list[str]:
    """Return what the files are called in messages."""
    return [files.where] if len(files.paths) == 1 else list(map(str, files.paths))


def _line_source(file: LineFile) -> Source:
    place = Place(file.where, ":" if file.has_lines else ": row ")

    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        return row_batches(file.rows(), columns, place, holds_json=file.holds_json)

    return Source(
        file.where, (place,), file.names, _digest(file), read, notes=file.notes, shapes=file.shapes, lists=file.lists
    )


def _digest(file: LineFile) -> str:
    """Return a digest of a file's bytes, and of how they are read where the same bytes may be read otherwise."""
    content = publish.file_sha256(file.path)
    return hashlib.sha256(f"{content} {file.reading}".encode()).hexdigest() if file.reading else content
