"""From files to their rows: see `source` for what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from ringtune.train import arrow_rows, csv_rule, formats, publish, several
from ringtune.train.columns import Columns
from ringtune.train.csv_rule import AUTO
from ringtune.train.files import Files
from ringtune.train.formats import LineFile
from ringtune.train.source import Place, Source, row_batches


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
    names = [files.where] if len(files.paths) == 1 else list(map(str, files.paths))
    rule, notes = None, files.notes
    if files.kind not in formats.TABLE_KINDS:
        for path, name in zip(files.paths, names, strict=True):
            formats.require_text(path, name)
    if files.kind in ("csv", "tsv"):
        named = list(zip(names, files.paths, strict=True))
        rule, more = csv_rule.decide(named, files.kind, files.where, delimiter=delimiter, quoting=quoting)
        notes += more

    def open_one(path: Path, name: str) -> Source:
        if files.kind in formats.TABLE_KINDS:
            return arrow_rows.open_table(path, files.kind, name, publish.file_sha256(path))
        how: dict[str, Any] = {"label_name": label_name, "rule": rule, "data_field": data_field}
        return _line_source(LineFile(path, files.kind, name, text_name, **how))

    sources = [open_one(path, name) for path, name in zip(files.paths, names, strict=True)]
    found = several.join(sources, files.where, holds_json=files.kind in formats.JSON_KINDS)
    return replace(found, notes=(*notes, *found.notes))


def _line_source(file: LineFile) -> Source:
    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        return row_batches(file.rows(), columns, holds_json=file.holds_json)

    place = Place(file.where, ":" if file.has_lines else ": row ")
    return Source(
        file.where, (place,), file.names, _digest(file), read, notes=file.notes, shapes=file.shapes, lists=file.lists
    )


def _digest(file: LineFile) -> str:
    """Return a digest of a file's bytes, and of how they are read where the same bytes may be read otherwise."""
    content = publish.file_sha256(file.path)
    return hashlib.sha256(f"{content} {file.reading}".encode()).hexdigest() if file.reading else content
