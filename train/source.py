"""Rows of an input as a stream of Arrow batches, each row marked with what is wrong with it; for both commands.

What comes out is the same for every format: the columns ``file`` (int32: which of the source's files, from 0), ``line``
(int64: where in it the row begins, from 1), ``error`` (null for a usable row), ``text/0`` and perhaps ``text/1``,
``label`` (as text, null if the row has none; where a row may have several, as JSON) if the labels are asked for,
``kept/NAME`` for each column to keep, and ``slice/NAME`` (as text, null for none) for each whose values part the rows
for their scores. Rows of words, and texts with entities, have the columns of `word_rows`, questions those of
`question_rows`, and rows of a context and choices that of `choice_rows`.
Nothing is ever read as a whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
from ringtune.train import choice_rows, question_rows, word_rows
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.json_rows import Row, shown
from ringtune.train.shapes import ANSWERS, CHOICES, SPANS, TEXT, WORDS
from ringtune.train.texts import what_is_wrong_with

ROWS_AT_ONCE = 512
#: What reads rows that are no texts with labels.
_READERS = {WORDS: word_rows.read, SPANS: word_rows.read, CHOICES: choice_rows.read, ANSWERS: question_rows.read}
NO_CHARACTER = "\ufffd"  # in a label, for what is not UTF-8


class Place(NamedTuple):
    """Where rows come from, for messages: a file, a split of a data set, stdin."""

    name: str
    unit: str  # what stands between it and a row: ":" where rows are known by their line, ": row " by their number

    def row(self, line: int | str) -> str:
        """Return where a row is."""
        return f"{self.name}{self.unit}{line}"


@dataclass(frozen=True)
class Source:
    """An input that can be read from its start any number of times."""

    where: str  # its name in messages
    files: tuple[Place, ...]  # one for most; the rows of several go on from one to the next
    names: tuple[str, ...]  # of its columns
    digest: str  # sha256 of its content
    read: Callable[[Columns], Iterator[pa.RecordBatch]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of columns declared as classes
    notes: tuple[str, ...] = ()  # how it is read, where that is not plain: a line each
    shapes: Mapping[str, str] = field(default_factory=dict)  # of columns that hold lists, as of `shapes.shape_of`
    types: Mapping[str, pa.DataType] = field(default_factory=dict)  # of columns as they are kept, where these have any
    lists: frozenset[str] = frozenset()  # names of columns that hold lists
    kind: str = ""  # format of its files, as `formats.BY_ENDING` names them; "" if it is no file

    def places(self, batch: pa.RecordBatch) -> Iterator[str]:
        """Give where each row of a batch is, for messages."""
        rows = zip(batch.column("file").to_pylist(), batch.column("line").to_pylist(), strict=True)
        return (self.files[file].row(line) for file, line in rows)


def no_rows(where: str) -> UsageError:
    """Return the error of an input without rows. **Pure.**"""
    return UsageError(where, "there are no rows in it", legal="a header and at least one row")


def refuse_errors(batch: pa.RecordBatch, source: Source, todo: str = "") -> None:
    """Raise UsageError naming the first row of a batch that cannot be used, if there is one."""
    errors = batch.column("error")
    if errors.null_count == len(errors):
        return
    for place, error in zip(source.places(batch), errors.to_pylist(), strict=True):
        if error is not None:
            raise UsageError(place, error, legal="rows that can be used", todo=todo)


def row_batches(
    rows: Iterable[Row], columns: Columns, place: Place, *, holds_json: bool, at_once: int = ROWS_AT_ONCE
) -> Iterator[pa.RecordBatch]:
    """Give rows in Arrow batches.

    place: where they are. holds_json: kept values are written as JSON, not as texts. at_once: rows of each. Raises
    UsageError for a value that parts no rows, see `slice_values`.
    """
    several: list[Row] = []
    for row in rows:
        several.append(row)
        if len(several) == at_once:
            yield _row_batch(several, columns, place, holds_json=holds_json)
            several = []
    if several:
        yield _row_batch(several, columns, place, holds_json=holds_json)


def _row_batch(rows: Sequence[Row], columns: Columns, place: Place, *, holds_json: bool) -> pa.RecordBatch:
    read, more = _READERS[columns.form](rows, columns) if columns.form in _READERS else (rows, {})
    errors = [error or what_is_wrong(values, columns) for _, values, error in read]
    arrays = {**row_columns([line for line, _, _ in rows], errors), **more}
    for number, name in enumerate(columns.contexts):
        texts = [None if error else values[name] for (_, values, _), error in zip(read, errors, strict=True)]
        arrays[f"text/{number}"] = pa.array(texts, pa.string())
    if columns.label is not None and columns.form in (TEXT, CHOICES):
        arrays["label"] = label_column((values for _, values, _ in rows), columns)
    for name in columns.sliced:
        arrays[f"slice/{name}"] = slice_values(((line, values.get(name)) for line, values, _ in rows), name, place)
    for name in columns.kept:
        kept = [values.get(name) for _, values, _ in rows]
        if holds_json:
            texts = [None if each is None else clean(json.dumps(each, ensure_ascii=False)) for each in kept]
            arrays[f"kept/{name}"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))
        else:
            arrays[f"kept/{name}"] = pa.array([None if each is None else clean(each) for each in kept], pa.string())
    return pa.RecordBatch.from_pydict(arrays)


def label_column(rows: Iterable[Mapping[str, Any]], columns: Columns, declared: Sequence[str] = ()) -> pa.Array:
    """Return the column ``label``: what `label_text` makes of each row's, or `LabelSets.read`. **Pure.**

    rows: values by column. declared: names of the labels of lists that hold numbers.
    """
    label, sets = str(columns.label), columns.sets
    if sets is not None:
        return pa.array([sets.read(values, label, declared) for values in rows], pa.string())
    return pa.array([label_text(values.get(label)) for values in rows], pa.string())


def row_columns(lines: Sequence[int], errors: Sequence[str | None]) -> dict[str, pa.Array]:
    """Return the columns that say where rows are, in the first file, and what is wrong with them. **Pure.**"""
    return {
        "file": pa.array([0] * len(lines), pa.int32()),
        "line": pa.array(lines, pa.int64()),
        "error": pa.array(errors, pa.string()),
    }


def what_is_wrong(values: Mapping[str, Any], columns: Columns) -> str | None:
    """Return why the texts of a row cannot be used, None if they can. **Pure.**"""
    wrong = (what_is_wrong_with(values.get(name), name) for name in columns.contexts)
    return next(filter(None, wrong), None)


def label_text(value: Any) -> str | None:
    """Return a label as text, None for what is no label: nothing, NaN, bytes, a list, an object. **Pure.**

    What is not UTF-8 in it becomes U+FFFD, as in no label that can be used.
    """
    if value is None or isinstance(value, (dict, list, bytes)) or (isinstance(value, float) and math.isnan(value)):
        return None
    return re.sub("[\ud800-\udfff]", NO_CHARACTER, str(value))


def slice_values(values: Iterable[tuple[int, Any]], name: str, place: Place) -> pa.Array:
    """Return the values of a column as texts, null for what `label_text` takes for none and for blanks. **Pure.**

    values: with the line of each. Raises UsageError for a list, an object or bytes, which are no group of rows.
    """
    texts: list[str | None] = []
    for line, value in values:
        if isinstance(value, (list, dict, bytes)):
            raise no_slices(place.row(line), name, shown(value))
        texts.append((label_text(value) or "").strip() or None)
    return pa.array(texts, pa.string())


def no_slices(where: str, name: str, held: str) -> UsageError:
    """Return the error of a column that parts no rows for their scores. held: what it holds, in words. **Pure.**"""
    return UsageError(
        where,
        f"column {name[:40]!r} holds {held}, which is no group of rows",
        legal="a text, a number or nothing in each row",
        todo="name another column with --slice_by",
    )


def clean(text: str) -> str:
    """Return the text with a question mark for what is no character. **Pure.**"""
    return text.encode("utf-8", "replace").decode("utf-8")
