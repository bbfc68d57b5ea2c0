"""Rows of any input as a stream, each marked with what is wrong with it; nothing is ever read as a whole.

What comes out is the same for every format: Arrow batches with the columns ``line`` (int64: where the row begins, from 1),
``error`` (null for a usable row), ``text/0`` and perhaps ``text/1``, ``label`` (as text, null if the row has none) if the
input has one, and ``kept/NAME`` for each column that the output shall show.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ringtune.train import chunks, data, flags
from ringtune.train.contract import UsageError
from ringtune.train.predict_config import ALL_COLUMNS, INPUT_FORMATS, PredictConfig

LONGEST_FIELD = data.LONGEST_FIELD
BYTES_PER_READ = 1 << 20
ROWS_AT_ONCE = 512
SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Columns:
    """Which columns of the input matter."""

    text: tuple[str, ...]  # one or two
    label: str | None
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """An input that can be read from its start as often as one likes."""

    where: str  # its name in messages
    unit: str  # ":" where rows are known by their line, ": row " where only by their number
    names: tuple[str, ...]  # of its columns
    digest: str  # sha256 of its content
    read: Callable[[Columns], Iterator[pa.RecordBatch]]

    def place(self, line: int | str) -> str:
        """Return where a row is, for messages."""
        return f"{self.where}{self.unit}{line}"


def open_source(config: PredictConfig, stdin: Path | None = None) -> Source:
    """Return the input of a prediction. stdin: the file that holds what came from there. Raises UsageError."""
    path = stdin if stdin is not None else Path(config.input)
    where = "stdin" if config.reads_stdin else config.input
    is_file = path.is_file() or path.suffix.lower() in INPUT_FORMATS or config.input_format is not None
    if not is_file:
        return _open_data_set(config)
    if config.input_format is None:
        flags.require_ending(path, f"--input {where}", INPUT_FORMATS)
    kind: str = config.input_format or INPUT_FORMATS[path.suffix.lower()]
    data.require_file(path, f"--input {where}")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if kind == "parquet":
        return _open_parquet(path, where, digest)
    rows, names, as_json = _line_format(path, kind, where)
    return Source(where, ":", names, digest, lambda columns: _line_batches(rows(), columns, as_json=as_json))


def choose_columns(source: Source, config: PredictConfig) -> Columns:
    """Return the columns that matter, by training's rules. Raises UsageError for one that is not there. **Pure.**"""
    label = config.label_column_name or "label"
    rules = data.DataSource(text_column_names=config.text_column_names, label_column_name=label)
    text = data.text_columns(rules, source.names, source.where)
    kept = source.names if config.keep_columns == ALL_COLUMNS else _names(config.keep_columns)
    data.require_columns(source.names, (*text, *kept), source.where)
    if config.label_column_name:
        data.require_columns(source.names, (label,), source.where)
    return Columns(text, label if label in source.names and label not in text else None, kept)


def _names(joined: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in joined.split(",") if name.strip()) if joined else ()


def in_chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Regroup batches into chunks; only the last may have fewer rows than its size."""
    waiting: list[pa.RecordBatch] = []
    wanted = map(chunks.size, itertools.count())
    size = next(wanted)
    for batch in batches:
        waiting.append(batch)
        while sum(each.num_rows for each in waiting) >= size:
            joined = pa.concat_batches(waiting)
            yield joined.slice(0, size)
            waiting = [joined.slice(size)]
            size = next(wanted)
    if any(each.num_rows for each in waiting):
        yield pa.concat_batches(waiting)


def refuse_errors(chunk: pa.RecordBatch, source: Source) -> None:
    """Raise UsageError naming the first row of a chunk that cannot be used, if there is one."""
    for line, error in zip(chunk.column("line").to_pylist(), chunk.column("error").to_pylist(), strict=True):
        if error is not None:
            raise UsageError(
                source.place(line), error, legal="rows that can be used", todo="mend it, or use --on_error keep"
            )


# Lines

Row = tuple[int, Mapping[str, Any], str | None]
"""Line, values by column (as far as they could be read), and what is wrong."""


def _line_format(path: Path, kind: str, where: str) -> tuple[Callable[[], Iterator[Row]], tuple[str, ...], bool]:
    """Return how to read a file's rows, its columns, and whether the values are JSON."""
    if kind == "text":
        return lambda: _text_rows(path), ("text",), False
    if kind in ("csv", "tsv"):
        delimiter = "\t" if kind == "tsv" else ","
        return lambda: _csv_rows(path, delimiter), _csv_header(path, delimiter, where), False

    def rows() -> Iterator[Row]:
        return _json_array(path, where) if _starts_an_array(path) else _json_lines(path)

    names = tuple(dict.fromkeys(name for _, values, _ in rows() for name in values))
    if not names:
        raise UsageError(where, "no row of it is a JSON object", legal='{"text": "...", ...}')
    return rows, names, True


def _text_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as stream:
        for line, raw in enumerate(stream, start=1):
            yield line, {"text": raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")}, None


def _csv_header(path: Path, delimiter: str, where: str) -> tuple[str, ...]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        try:
            header = tuple(next(csv.reader(stream, delimiter=delimiter, strict=True), ()))
            "".join(header).encode()
        except (csv.Error, UnicodeEncodeError) as error:
            raise UsageError(
                f"{where}:1", f"the header cannot be read: {error}", legal="names of columns, UTF-8"
            ) from None
    twice = [name for name in header if header.count(name) > 1]
    if twice or not header:
        raise UsageError(
            f"{where}:1",
            f"the header has {twice[0]!r} twice" if twice else "there is no header",
            legal="a name of its own for each column",
        )
    return header


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = next(reader)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, {}, f"it cannot be read as csv: {error}"
                continue
            if fields:  # a blank line is no row, as in training
                wrong = len(fields) != len(header)
                error_text = f"it has {len(fields)} fields, the header {len(header)}" if wrong else None
                yield line, dict(zip(header, fields, strict=False)), error_text


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as stream:
        for line, raw in enumerate(stream, start=1):
            if raw.strip():
                yield line, *_json_object(raw)


def _json_object(raw: bytes) -> tuple[Mapping[str, Any], str | None]:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return {}, f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8"
    except json.JSONDecodeError as error:
        return {}, f"it is not JSON: {error.msg}, character {error.pos + 1}"
    except RecursionError:
        return {}, "it is not JSON that can be read: it is nested too deeply"
    return _checked_object(value)


def _checked_object(value: Any) -> tuple[Mapping[str, Any], str | None]:
    return (value, None) if isinstance(value, dict) else ({}, f"it is {_shown(value)}, not a JSON object")


def _starts_an_array(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _json_array(path: Path, where: str) -> Iterator[Row]:
    """Give the elements of one array, reading no more of it than the next element needs. Its rows have numbers, no lines."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        text = stream.read(BYTES_PER_READ).lstrip()[1:]
        for number in range(1, 1 << 62):
            text = text.lstrip(" \t\r\n")
            while True:
                try:
                    if text.startswith("]"):
                        return
                    value, end = decoder.raw_decode(text)
                    if end == len(text):  # a number may go on in what is not read yet
                        raise ValueError("the array does not end")
                    break
                except (ValueError, RecursionError) as error:
                    more = stream.read(BYTES_PER_READ) if len(text) < LONGEST_FIELD else ""
                    if not more:
                        raise UsageError(
                            f"{where}: row {number}",
                            f"it is not JSON: {error}",
                            legal="an array of objects",
                            todo="mend the file; a .jsonl file may have broken rows",
                        ) from None
                    text = (text + more).lstrip(" \t\r\n")
            yield number, *_checked_object(value)
            text = text[end:].lstrip(" \t\r\n") or stream.read(BYTES_PER_READ)
            text = text.lstrip(" \t\r\n").removeprefix(",")


def _line_batches(rows: Iterator[Row], columns: Columns, *, as_json: bool) -> Iterator[pa.RecordBatch]:
    several: list[Row] = []
    for row in rows:
        several.append(row)
        if len(several) == ROWS_AT_ONCE:
            yield _line_batch(several, columns, as_json=as_json)
            several = []
    if several:
        yield _line_batch(several, columns, as_json=as_json)


def _line_batch(rows: Sequence[Row], columns: Columns, *, as_json: bool) -> pa.RecordBatch:
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
        if as_json:
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
            return f"column {name!r} holds {_shown(text)}, not text"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            # A byte that is not UTF-8 was read as a surrogate of its own (PEP 383); others come from JSON's \u escapes.
            what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character, \\u{code:04x},"
            return f"{what} in column {name!r} is not UTF-8"
    return None


def _label_text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else _clean(str(value))


def _clean(text: str) -> str:
    """Return the text with a question mark for what is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


# Tables


def _open_parquet(path: Path, where: str, digest: str) -> Source:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            where,
            f"it cannot be read as parquet: {' '.join(str(error).split())[:200]}",
            legal="a whole Parquet file",
            todo="write it again",
        ) from None

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys((*columns.text, *([columns.label] if columns.label else []), *columns.kept)))
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False)

    return _table_source(where, digest, schema, batches, class_names={})


def _open_data_set(config: PredictConfig) -> Source:
    name, configuration = config.input, config.dataset_config_name
    where = f"data set {name}" + (f"/{configuration}" if configuration else "")
    loaded = data.load_repository(name, configuration, where, "a file; there is no file of that name")
    split = config.dataset_split or (next(iter(loaded)) if len(loaded) == 1 else "test")
    if split not in loaded:
        raise UsageError("--dataset_split", f"{where} has no split {split}", legal=", ".join(map(str, loaded)))
    rows = loaded[split].with_format("arrow")

    def batches(columns: Columns) -> Iterator[pa.RecordBatch]:
        for table in rows.iter(batch_size=ROWS_AT_ONCE):
            yield from table.to_batches()

    class_names = {column: tuple(each.names) for column, each in rows.features.items() if getattr(each, "names", None)}
    digest = hashlib.sha256(f"{split}{rows._fingerprint}".encode()).hexdigest()
    return _table_source(
        f"{where}, split {split}", digest, rows.features.arrow_schema, batches, class_names=class_names
    )


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

    return Source(where, ": row ", tuple(schema.names), digest, read)


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
        named = [
            class_names[each] if class_names and each is not None and 0 <= each < len(class_names) else each
            for each in labels
        ]
        arrays["label"] = pa.array([_label_text(each) for each in named], pa.string())
    for name in columns.kept:
        column = batch.column(name)
        arrays[f"kept/{name}"] = (
            pa.array([None if each is None else _clean(each) for each in _texts(column)], pa.string())
            if _is_text(column.type)
            else column
        )
    return pa.RecordBatch.from_pydict(arrays)


def _texts(column: pa.Array) -> list[str | None]:
    """Return a column's texts; bytes that are not UTF-8, which Arrow lets pass, become surrogates (PEP 383)."""
    values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [None if each is None else each.decode("utf-8", "surrogateescape") for each in values]
