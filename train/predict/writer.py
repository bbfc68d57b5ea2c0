"""Rows of the output, and the files they are written to: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ringtune.train import arrow_values
from ringtune.train.contract import UsageError

ROWS_PER_GROUP = 65_536  # of a Parquet file
_CRLF = "\r\n"
KEPT = "kept/"  # before the names of the input's columns in the reader's rows
PREDICTED = {b"ringtune": b"predicted"}  # metadata of the columns that do not come from the input


class Writer(Protocol):
    """Takes the rows of a file in their order."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows; every batch has the same columns."""
        ...

    def close(self) -> None:
        """Write what is left; does not close the stream."""
        ...


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python values; ``error`` only in rows that have one, and no prediction in these. **Pure.**

    A float32 becomes the number with the fewest digits that names it, in every format the same.
    """
    columns = [_python_values(batch.column(name)) for name in batch.schema.names]
    kept = [field.metadata != PREDICTED for field in batch.schema]
    return [
        {
            name: value
            for name, value, keep in zip(batch.schema.names, row, kept, strict=True)
            if keep or value is not None
        }
        for row in zip(*columns, strict=True)
    ]


def _python_values(column: pa.Array) -> list[Any]:
    if pa.types.is_float32(column.type):
        return list(pc.cast(pc.cast(column, pa.string()), pa.float64()).to_pylist())
    if isinstance(column.type, pa.JsonType):
        return [None if each is None else json.loads(each) for each in column.storage.to_pylist()]
    return arrow_values.held(column)


def refuse_unwritable(rows: pa.RecordBatch, ending: str, where: str) -> None:
    """Raise UsageError for a kept column of the reader's rows that the format of an ending cannot hold.

    where: the input.
    """
    for name, column in zip(rows.schema.names, rows.columns, strict=True) if ending == ".parquet" else ():
        if not name.startswith(KEPT):
            continue
        # Parquet counts no whole seconds: Arrow writes milliseconds, for which a number may be too large.
        written = column if "timestamp[s" in str(column.type) else column.slice(0, 0)
        try:
            pq.write_table(pa.table({name.removeprefix(KEPT): written}), pa.BufferOutputStream())
        except (pa.ArrowException, NotImplementedError) as error:
            raise UsageError(
                where,
                f"column {name.removeprefix(KEPT)[:40]!r} holds {str(column.type)[:100]}, which Parquet cannot hold: "
                f"{' '.join(str(error).split())[:90]}",
                legal="other types",
                todo="write .jsonl or .csv, or name other columns with --keep_columns",
            ) from None


@contextmanager
def open_writer(path: Path, ending: str, schema: pa.Schema) -> Iterator[Writer]:
    """Give a writer of a file in the format of an ending, and flush it to the operating system at the end."""
    if ending == ".parquet":
        with pq.ParquetWriter(path, schema) as file:
            writer: Writer = _ParquetWriter(file)
            yield writer
            writer.close()
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = _CsvWriter(stream, schema.names) if ending == ".csv" else _JsonWriter(stream)
        yield writer
        writer.close()


class _JsonWriter:
    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, batch: pa.RecordBatch) -> None:
        self.stream.writelines(_json(row) + "\n" for row in rows_of(batch))

    def close(self) -> None:
        pass


class _Lines:
    """Takes the lines of a csv.writer and ends each with a line feed alone.

    Up to Python 3.12 a csv.writer encloses a line break of a cell in quotes only if it is one of those that end its
    lines; readers end a row at any other, too.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, line: str) -> int:
        return self.stream.write(line.removesuffix(_CRLF) + "\n")


class _CsvWriter:
    def __init__(self, stream: TextIO, names: list[str]) -> None:
        self.names = names
        self.writer = csv.writer(_Lines(stream), lineterminator=_CRLF)
        self.writer.writerow(names)

    def write(self, batch: pa.RecordBatch) -> None:
        self.writer.writerows([_cell(row.get(name)) for name in self.names] for row in rows_of(batch))

    def close(self) -> None:
        pass


def _cell(value: Any) -> Any:
    return _json(value) if isinstance(value, (dict, list, bool)) else value


def _json(value: Any) -> str:
    """Return a value as JSON, which has no NaN and no infinity (RFC 8259): null stands for them."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _ParquetWriter:
    """Groups as many rows as readers of Parquet like, which is more than a chunk has."""

    def __init__(self, file: pq.ParquetWriter) -> None:
        self.file = file
        self.waiting: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self.waiting.append(batch)
        if sum(each.num_rows for each in self.waiting) >= ROWS_PER_GROUP:
            self.close()

    def close(self) -> None:
        if self.waiting:
            self.file.write_table(pa.Table.from_batches(self.waiting))
            self.waiting = []
