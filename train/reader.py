"""Rows of any input as a stream of Arrow batches, each row marked with what is wrong with it; for both commands.

What comes out is the same for every format: the columns ``line`` (int64: where the row begins, from 1), ``error`` (null
for a usable row), ``text/0`` and perhaps ``text/1``, ``label`` (as text, null if the row has none) if the labels are
asked for, and ``kept/NAME`` for each column to keep. Nothing is ever read as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ringtune.train import formats
from ringtune.train.columns import Columns
from ringtune.train.compression import OPENERS, is_compressed, plain_ending
from ringtune.train.contract import UsageError
from ringtune.train.csv_rule import AUTO
from ringtune.train.formats import LineFile
from ringtune.train.json_rows import Row, shown

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Source:
    """An input that can be read from its start any number of times."""

    where: str  # its name in messages
    unit: str  # ":" where rows are known by their line, ": row " where only by their number
    names: tuple[str, ...]  # of its columns
    digest: str  # sha256 of its content
    read: Callable[[Columns], Iterator[pa.RecordBatch]]
    class_names: Mapping[str, tuple[str, ...]]  # of columns that a data set declares as classes
    notes: tuple[str, ...] = ()  # how it is read, where that is not plain: a line each

    def place(self, line: int | str) -> str:
        """Return where a row is, for messages."""
        return f"{self.where}{self.unit}{line}"


def no_rows(where: str) -> UsageError:
    """Return the error of an input without rows. **Pure.**"""
    return UsageError(where, "there are no rows in it", legal="a header and at least one row")


def refuse_errors(batch: pa.RecordBatch, source: Source, todo: str = "") -> None:
    """Raise UsageError naming the first row of a batch that cannot be used, if there is one."""
    errors = batch.column("error")
    if errors.null_count == len(errors):
        return
    for line, error in zip(batch.column("line").to_pylist(), errors.to_pylist(), strict=True):
        if error is not None:
            raise UsageError(source.place(line), error, legal="rows that can be used", todo=todo)


# Files


def open_file(
    path: Path,
    flag: str,
    *,
    kind: str | None = None,
    text_name: str = "text",
    delimiter: str = AUTO,
    quoting: str = AUTO,
    data_field: str | None = None,
) -> Source:
    """Return the rows of a file. Raises UsageError for a file that cannot be used.

    flag: what the user wrote, ``--input rows.csv``. kind: the format; None: by the ending. text_name: the name of a
    plain text file's one column. delimiter, quoting: of a CSV or TSV file, as `csv_rule.decide` takes them.
    data_field: of a JSON file that is one object, the field with its rows.
    """
    where = flag.partition(" ")[2] or flag
    if kind is None:
        kind = kind_of(path, flag, formats.BY_ENDING)
    formats.require_file(path, flag)
    digest = formats.file_digest(path)
    if kind == "parquet":
        return _open_parquet(path, where, digest)
    file = LineFile(path, kind, where, text_name, delimiter=delimiter, quoting=quoting, data_field=data_field)

    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        return row_batches(file.rows(), columns, holds_json=file.holds_json)

    return Source(
        where, ":" if file.has_lines else ": row ", file.names, digest, read, class_names={}, notes=file.notes
    )


def kind_of(path: Path, flag: str, legal: Mapping[str, str]) -> str:
    """Return the format of a file by its ending, or the one before that of a compressed file. Raises UsageError."""
    ending = plain_ending(path)
    if ending not in legal or (legal[ending] == "parquet" and is_compressed(path)):
        raise UsageError(
            flag,
            f"the ending {''.join(path.suffixes[-2:]) or 'is missing'} is not known",
            legal=f"{', '.join(legal)}; all but .parquet also with {', '.join(OPENERS)}",
            todo="convert or rename it",
        )
    return legal[ending]


def row_batches(rows: Iterable[Row], columns: Columns, *, holds_json: bool) -> Iterator[pa.RecordBatch]:
    """Give rows in Arrow batches. holds_json: kept values are written as JSON, not as texts."""
    several: list[Row] = []
    for row in rows:
        several.append(row)
        if len(several) == ROWS_AT_ONCE:
            yield _row_batch(several, columns, holds_json=holds_json)
            several = []
    if several:
        yield _row_batch(several, columns, holds_json=holds_json)


def _row_batch(rows: Sequence[Row], columns: Columns, *, holds_json: bool) -> pa.RecordBatch:
    errors = [error or _what_is_wrong(values, columns) for _, values, error in rows]
    arrays: dict[str, pa.Array] = {
        "line": pa.array([line for line, _, _ in rows], pa.int64()),
        "error": pa.array(errors, pa.string()),
    }
    for number, name in enumerate(columns.text):
        texts = [None if error else values[name] for (_, values, _), error in zip(rows, errors, strict=True)]
        arrays[f"text/{number}"] = pa.array(texts, pa.string())
    if columns.label is not None:
        arrays["label"] = pa.array([_label_text(values.get(columns.label)) for _, values, _ in rows], pa.string())
    for name in columns.kept:
        kept = [values.get(name) for _, values, _ in rows]
        if holds_json:
            texts = [None if each is None else _clean(json.dumps(each, ensure_ascii=False)) for each in kept]
            arrays[f"kept/{name}"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))
        else:
            arrays[f"kept/{name}"] = pa.array([None if each is None else _clean(each) for each in kept], pa.string())
    return pa.RecordBatch.from_pydict(arrays)


def _what_is_wrong(values: Mapping[str, Any], columns: Columns) -> str | None:
    for name in columns.text:
        text = values.get(name)
        if text is None:
            return f"there is no text in column {name!r}"
        if not isinstance(text, str):
            return f"column {name!r} holds {shown(text)}, not text"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            # A byte that is not UTF-8 was read as a surrogate of its own (PEP 383); others come from JSON's \u escapes.
            what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character, \\u{code:04x},"
            return f"{what} in column {name!r} is not UTF-8"
    return None


def _label_text(value: Any) -> str | None:
    """Return a label as text, None for what is no label: nothing, a list, an object."""
    return None if value is None or isinstance(value, (dict, list)) else _clean(str(value))


def _clean(text: str) -> str:
    """Return the text with a question mark for what is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


# Tables


def _open_parquet(path: Path, where: str, digest: str) -> Source:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            where, f"it cannot be read as parquet: {' '.join(str(error).split())[:200]}", legal="a whole Parquet file"
        ) from None

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys((*columns.text, *([columns.label] if columns.label else []), *columns.kept)))
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False)

    return _table_source(where, digest, schema, batches, class_names={})


def open_data_set(rows: Any, where: str) -> Source:
    """Return the rows of one split of a data set (``datasets.Dataset``)."""

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        for table in rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            yield from table.to_batches()

    class_names = {column: tuple(each.names) for column, each in rows.features.items() if getattr(each, "names", None)}
    digest = hashlib.sha256(str(rows._fingerprint).encode()).hexdigest()
    return _table_source(where, digest, rows.features.arrow_schema, batches, class_names=class_names)


def _table_source(
    where: str,
    digest: str,
    schema: pa.Schema,
    batches: Callable[[Columns], Iterator[pa.RecordBatch]],
    *,
    class_names: Mapping[str, tuple[str, ...]],
) -> Source:
    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        for name in columns.text:
            kind = schema.field(name).type
            if not _is_text(kind):
                raise UsageError(
                    where,
                    f"column {name!r} holds {kind}, not text",
                    legal="strings",
                    todo="name another column with --text_column_names",
                )
        first = 1
        for batch in batches(columns):
            yield _table_batch(batch, first, columns, class_names.get(columns.label or "", ()))
            first += batch.num_rows

    return Source(where, ": row ", tuple(schema.names), digest, read, class_names)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _table_batch(batch: pa.RecordBatch, first: int, columns: Columns, class_names: tuple[str, ...]) -> pa.RecordBatch:
    texts = {name: _texts(batch.column(name)) for name in columns.text}
    errors = [_what_is_wrong(dict(zip(texts, row, strict=True)), columns) for row in zip(*texts.values(), strict=True)]
    arrays: dict[str, pa.Array] = {
        "line": pa.array(range(first, first + batch.num_rows), pa.int64()),
        "error": pa.array(errors, pa.string()),
    }
    for number, name in enumerate(columns.text):
        usable = [None if error else text for text, error in zip(texts[name], errors, strict=True)]
        arrays[f"text/{number}"] = pa.array(usable, pa.string())
    if columns.label is not None:
        labels = batch.column(columns.label).to_pylist()
        if class_names:  # numbers of classes; one outside, such as -1 in GLUE's test rows, means no label
            labels = [
                class_names[each] if each is not None and 0 <= each < len(class_names) else None for each in labels
            ]
        arrays["label"] = pa.array([_label_text(each) for each in labels], pa.string())
    for name in columns.kept:
        column = batch.column(name)
        if _is_text(column.type):
            column = pa.array([None if each is None else _clean(each) for each in _texts(column)], pa.string())
        arrays[f"kept/{name}"] = column
    return pa.RecordBatch.from_pydict(arrays)


def _texts(column: pa.Array) -> list[str | None]:
    """Return a column's texts; bytes that are not UTF-8, which Arrow does not check, become surrogates (PEP 383)."""
    values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [None if each is None else each.decode("utf-8", "surrogateescape") for each in values]
