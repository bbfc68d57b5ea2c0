"""The rows of what Arrow reads: Parquet files, Arrow and Feather files, data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ringtune.train import arrow_values, word_rows
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.question_rows import columns_beside
from ringtune.train.shapes import CHOICES, TEXT, WORDS
from ringtune.train.source import (
    ROWS_AT_ONCE,
    Place,
    Source,
    clean,
    label_column,
    no_slices,
    row_batches,
    row_columns,
    slice_values,
    what_is_wrong,
)

_HASHED_AT_ONCE = 8192  # rows of a data set
Batches = Callable[[Columns], Iterator[pa.RecordBatch]]


def open_table(path: Path, kind: str, where: str, digest: str) -> Source:
    """Return the rows of a Parquet, Arrow or Feather file. Raises UsageError for one that cannot be read."""
    try:
        schema = pq.read_schema(path) if kind == "parquet" else _open_ipc(path).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(where, kind, error) from None

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys((*columns.text, *columns.labels, *columns.kept, *columns.sliced)))
        wanted += [name for name in columns_beside(schema, columns) if name not in wanted]
        try:
            if kind == "parquet":
                with pq.ParquetFile(path) as file:
                    yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False)
            else:
                yield from (part for batch in _ipc_batches(path) for part in _slices(batch.select(wanted)))
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(where, kind, error) from None

    class_names = _stored_class_names(schema, where)
    if class_names:  # they are a part of how the same bytes are read
        digest = hashlib.sha256(f"{digest} {json.dumps(class_names)}".encode()).hexdigest()
    return _source(where, digest, schema, batches, class_names=class_names)


def _stored_class_names(schema: pa.Schema, where: str) -> dict[str, tuple[str, ...]]:
    """Return the classes of columns of numbers that the library datasets has written into a file, as JSON, beside them.

    Raises UsageError for what is no JSON.
    """
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        raise UsageError(
            where,
            "what it has under 'huggingface' is no JSON",
            legal="a file as datasets writes it",
            todo="write it again",
        ) from None
    info = content.get("info") if isinstance(content, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        return {}
    found = {}
    for column in schema:
        kind = column.type.value_type if arrow_values.is_list(column.type) else column.type
        if pa.types.is_integer(kind) and (names := _stored_names(features.get(column.name))):
            found[column.name] = names
    return found


def _stored_names(feature: Any) -> tuple[str, ...]:
    """Return the names that a stored feature, or the feature of the lists in it, declares. **Pure.**"""
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
        feature = feature["feature"] if isinstance(feature, dict) else (feature or [None])[0]
    is_class = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    return tuple(map(str, feature.get("names") or ())) if is_class else ()


def _unreadable(where: str, kind: str, error: Exception) -> UsageError:
    words = " ".join(str(error).split())[:200]
    return UsageError(where, f"it cannot be read as {kind}: {words}", legal=f"a whole {kind.capitalize()} file")


def _open_ipc(path: Path) -> Any:
    """Open an Arrow file of either format: with a footer, as Feather is, or a stream, as data sets are saved."""
    with path.open("rb") as stream:
        is_file = stream.read(6) == b"ARROW1"
    return pa.ipc.open_file(pa.OSFile(str(path))) if is_file else pa.ipc.open_stream(pa.OSFile(str(path)))


def _ipc_batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = _open_ipc(path)
    if isinstance(reader, pa.RecordBatchFileReader):
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(first, ROWS_AT_ONCE) for first in range(0, batch.num_rows, ROWS_AT_ONCE))


def open_data_set(rows: Any, where: str) -> Source:
    """Return the rows of one split of a data set (``datasets.Dataset``)."""

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        for table in rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            yield from table.to_batches()

    class_names = {column: _class_names(each) for column, each in rows.features.items() if _class_names(each)}
    return _source(where, _digest(rows), rows.features.arrow_schema, batches, class_names=class_names)


def _digest(rows: Any) -> str:
    """Return a sha256 of a data set's rows and features.

    The fingerprint of datasets is of how rows were made, paths and times of files among it: copies have different ones,
    and what a function read elsewhere is not in it.
    """
    digest = hashlib.sha256(str(rows.features).encode())
    for table in rows.with_format("arrow").iter(batch_size=_HASHED_AT_ONCE):
        for batch in table.combine_chunks().replace_schema_metadata().to_batches():
            rows_alone = batch.take(pa.array(range(batch.num_rows)))  # and nothing that a slice or a null left behind
            digest.update(rows_alone.serialize())
    return digest.hexdigest()


def _class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of the classes that a column's feature declares, or those of the lists in it."""
    inner = getattr(feature, "feature", feature)
    return tuple(getattr(inner, "names", None) or ())


def _source(
    where: str, digest: str, schema: pa.Schema, batches: Batches, *, class_names: Mapping[str, tuple[str, ...]]
) -> Source:
    schema = pa.schema([each.with_type(arrow_values.plain_type(each.type)) for each in schema])

    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        for name in columns.text if columns.form != WORDS else ():
            kind = schema.field(name).type
            is_choices = columns.choices == (name,) and arrow_values.is_list(kind)
            if not (arrow_values.is_text(kind) or pa.types.is_null(kind) or is_choices):
                raise UsageError(
                    where,
                    f"column {name[:40]!r} holds {str(kind)[:100]}, not text",
                    legal="strings",
                    todo="name another column with --text_column_names",
                )
        for name in columns.sliced:
            if arrow_values.is_many(schema.field(name).type):
                raise no_slices(where, name, str(schema.field(name).type)[:100])
        first, place = 1, Place(where, ": row ")
        for batch in batches(columns):
            yield _table_batch(_readable(batch, where), first, place, columns, class_names.get(columns.label or "", ()))
            first += batch.num_rows

    return Source(
        where,
        (Place(where, ": row "),),
        tuple(schema.names),
        digest,
        read,
        class_names,
        shapes={each.name: shape for each in schema if (shape := word_rows.shape_of_type(each.type))},
        types={each.name: _kept_type(each.type) for each in schema},
        lists=frozenset(each.name for each in schema if arrow_values.is_list(each.type)),
    )


def _readable(batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
    """Return a batch with columns that rows can be taken of. Raises UsageError for one that they cannot."""
    found = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            found[name] = arrow_values.plain(column)
            if not arrow_values.is_text(column.type):  # which are read as plain ones, whatever Arrow can do with them
                found[name].take(pa.array([], pa.int64()))
        except NotImplementedError:
            raise UsageError(
                where,
                f"column {name[:40]!r} holds {str(column.type)[:100]}, which cannot be read",
                legal="texts, numbers, times, lists and structs of them",
                todo="leave it out, or write it as another type",
            ) from None
    return pa.RecordBatch.from_pydict(found)


def _table_batch(
    batch: pa.RecordBatch, first: int, place: Place, columns: Columns, class_names: tuple[str, ...]
) -> pa.RecordBatch:
    if columns.form != TEXT:
        return _word_batch(batch, first, place, columns, class_names)
    texts = {name: arrow_values.texts(batch.column(name)) for name in columns.text}
    errors = [what_is_wrong(dict(zip(texts, row, strict=True)), columns) for row in zip(*texts.values(), strict=True)]
    arrays = row_columns(range(first, first + batch.num_rows), errors)
    for number, name in enumerate(columns.text):
        usable = [None if error else text for text, error in zip(texts[name], errors, strict=True)]
        arrays[f"text/{number}"] = pa.array(usable, pa.string())
    if columns.label is not None:
        values = {name: arrow_values.values(batch.column(name)) for name in columns.labels}
        if class_names and not columns.sets:  # numbers of classes; one outside, such as -1 in GLUE's test rows: none
            values[columns.label] = [_named_one(each, class_names) for each in values[columns.label]]
        rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
        arrays["label"] = label_column(rows, columns, class_names)
    for name in columns.sliced:
        arrays[f"slice/{name}"] = slice_values(enumerate(arrow_values.values(batch.column(name)), first), name, place)
    for name in columns.kept:
        arrays[f"kept/{name}"] = _kept(batch.column(name))
    return pa.RecordBatch.from_pydict(arrays)


def _word_batch(
    batch: pa.RecordBatch, first: int, place: Place, columns: Columns, class_names: tuple[str, ...]
) -> pa.RecordBatch:
    """Return rows of words, of texts with entities, of choices, or of questions, as `source.row_batches` does."""
    beside = columns_beside(batch.schema, columns)
    wanted = dict.fromkeys((*columns.text, columns.label, *columns.sliced, *beside))
    values = {name: arrow_values.values(batch.column(name)) for name in wanted if name is not None}
    if class_names and columns.label is not None:
        named = _named_one if columns.form == CHOICES else _named
        values[columns.label] = [named(each, class_names) for each in values[columns.label]]
    rows = [
        (line, dict(zip(values, row, strict=True)), None)
        for line, row in enumerate(zip(*values.values(), strict=True), start=first)
    ]
    plain = next(row_batches(rows, replace(columns, kept=()), place, holds_json=True, at_once=len(rows)))
    arrays = dict(zip(plain.schema.names, plain.columns, strict=True))
    return pa.RecordBatch.from_pydict(arrays | {f"kept/{name}": _kept(batch.column(name)) for name in columns.kept})


def _named_one(number: int | None, class_names: tuple[str, ...]) -> str | None:
    """Return the name of a class, None for a number outside."""
    return class_names[number] if number is not None and 0 <= number < len(class_names) else None


def _named(row: Any, class_names: tuple[str, ...]) -> list[str] | None:
    """Return the names of a row's tags; None for a row with a number outside, such as -1, which means no tag."""
    if row is None or any(each is None or not 0 <= each < len(class_names) for each in row):
        return None
    return [class_names[each] for each in row]


def _kept(column: pa.Array) -> pa.Array:
    """Return a column to keep; of categories their values, as the categories may differ from batch to batch."""
    if arrow_values.is_text(column.type):
        return pa.array([None if each is None else clean(each) for each in arrow_values.texts(column)], pa.string())
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else arrow_values.cleaned(column)


def _kept_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if arrow_values.is_text(kind) else kind.value_type if pa.types.is_dictionary(kind) else kind
