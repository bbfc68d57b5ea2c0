"""Several files as one source: their rows go on from one to the next, their columns must agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from ringtune.train.columns import Columns, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.shapes import TEXT
from ringtune.train.source import Place, Source

_SHOWN = 5  # files in a line


def join(sources: Sequence[Source], where: str, *, holds_json: bool) -> Source:
    """Return files as one source. Raises UsageError for files whose columns differ.

    where: what the user wrote. holds_json: a column may be missing in a file, as in a row of it; not the text columns.
    """
    if len(sources) == 1:
        return sources[0]
    if not holds_json:
        for each in sources[1:]:
            _require_same_names(sources[0], each)

    def read(columns: Columns) -> Iterator[pa.RecordBatch]:
        for each in sources:
            _require_texts(each, columns, sources)
        types = {f"kept/{name}": _kept_type(name, sources) for name in columns.kept}
        for label in columns.labels if columns.form == TEXT else ():
            _require_like_labels(label, sources)
        if columns.label is not None:
            _require_like_classes(columns.label, sources)
        for number, each in enumerate(sources):
            for batch in each.read(columns):
                yield _of_file(batch, number, types)

    digests = json.dumps([each.digest for each in sources])
    return Source(
        where,
        files=tuple(place for each in sources for place in each.files),
        names=tuple(dict.fromkeys(name for each in sources for name in each.names)) if holds_json else sources[0].names,
        digest=hashlib.sha256(digests.encode()).hexdigest(),
        read=read,
        class_names={name: names for each in reversed(sources) for name, names in each.class_names.items()},
        shapes={name: shape for each in reversed(sources) for name, shape in each.shapes.items()},
        notes=tuple(dict.fromkeys(note for each in sources for note in each.notes)),
        lists=frozenset(name for each in sources for name in each.lists),
    )


def describe(files: Sequence[Place], counts: Sequence[int] | None = None) -> list[str]:
    """Return which files are read, in their order, a line each; nothing for one. **Pure.**

    counts: rows of each file; None: not known yet.
    """
    if len(files) == 1:
        return []
    names = [Path(place.name).name for place in files]
    if len(set(names)) < len(names):  # files of several folders
        names = [place.name for place in files]
    if counts is None:
        return [f"{len(files)} files, read in this order: {_few(names)}"]
    shown = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
    lines = [f"{len(files)} files with {sum(counts)} rows, read in this order: {_few(shown)}"]
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        lines.append(f"{len(empty)} of {len(files)} files have no rows: {shown_names(empty)}")
    return lines


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _SHOWN else f"{names[0]}, {names[1]} ... {names[-1]}"


def _of_file(batch: pa.RecordBatch, number: int, types: dict[str, pa.DataType | None]) -> pa.RecordBatch:
    """Return a batch with its file's number, and with the types that kept columns have in all files."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["file"] = pa.array([number] * batch.num_rows, pa.int32())
    for name, kind in types.items():
        if kind is not None:
            columns[name] = columns[name].cast(kind)
    return pa.RecordBatch.from_pydict(columns)


def _require_same_names(first: Source, other: Source) -> None:
    if sorted(first.names) != sorted(other.names):
        raise UsageError(
            other.where,
            f"its columns are {shown_names(other.names)}",
            legal=f"those of {first.where}: {shown_names(first.names)}",
            todo="give all files the same columns, in any order",
        )


def _require_texts(each: Source, columns: Columns, sources: Sequence[Source]) -> None:
    """Raise UsageError for a file none of whose rows has a text column that another file has."""
    missing = [name for name in columns.text if name not in each.names]
    if missing:
        other = next(other for other in sources if missing[0] in other.names)
        raise UsageError(
            each.where,
            f"there is no column {missing[0]!r}; it has {shown_names(each.names)}",
            legal=f"the text columns of {other.where}, which has {shown_names(other.names)}",
        )


def _kept_type(name: str, sources: Sequence[Source]) -> pa.DataType | None:
    """Return the type of a kept column, None where all are texts or JSON. Raises UsageError for several types."""
    found: Source | None = None
    for each in sources:
        kind = each.types.get(name)
        if kind is None or pa.types.is_null(kind):
            continue
        if found is not None and kind != found.types[name]:
            raise _differ(name, found, each)
        found = found or each
    return found.types[name] if found is not None else None


def _require_like_labels(name: str, sources: Sequence[Source]) -> None:
    """Raise UsageError for a label column of several types, but for numbers and texts: labels are read as texts."""
    first: Source | None = None
    for each in sources:
        kind = each.types.get(name)
        if kind is None or pa.types.is_null(kind):
            continue
        if first is not None and _label_kind(kind) != _label_kind(first.types[name]):
            raise _differ(name, first, each)
        first = first or each


def _require_like_classes(name: str, sources: Sequence[Source]) -> None:
    """Raise UsageError for a label column whose numbers stand for other classes, or for none, in some file.

    The order may differ: the numbers of each file are read as its own names.
    """
    first = sources[0].class_names.get(name, ())
    for each in sources[1:]:
        names = each.class_names.get(name, ())
        if sorted(names) != sorted(first):
            raise UsageError(
                each.where,
                f"column {name!r} declares {_classes(names)}",
                legal=f"those of {sources[0].where}: {_classes(first)}",
                todo="write both files with the same classes, or read one of them",
            )


def _classes(names: Sequence[str]) -> str:
    return f"the classes {shown_names(names)}" if names else "no classes"


def _label_kind(kind: pa.DataType) -> str:
    is_plain = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return "text or number" if is_plain else str(kind)


def _differ(name: str, first: Source, other: Source) -> UsageError:
    kinds = [f"{str(each.types[name])[:60]} in {each.where}" for each in (first, other)]
    return UsageError(f"column {name!r}", f"it holds {' and '.join(kinds)}", legal="one type in all files")
