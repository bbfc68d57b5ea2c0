"""How a CSV or TSV file is to be read: what separates its fields, and whether quotes are part of them.

Files disagree on quotes. Most follow RFC 4180: a field that begins with a quote ends with one, may hold separators and
line breaks, and doubles the quotes in it. Others, such as GLUE's TSV files, know no quoting: a quote is a character.
What the user does not say is decided from all of them: quotes enclose the fields of a ``.csv`` file if all its rows
can be read so, and of a ``.tsv`` file if besides they could not be read otherwise with other rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ringtune.train.compression import open_binary
from ringtune.train.contract import UsageError

AUTO = "auto"
SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'"}
LONGEST_FIELD = 10_000_000  # characters of a value: an unclosed quote must not swallow the rest of the file


def require_delimiter(delimiter: str) -> None:
    """Raise UsageError for what cannot separate fields. **Pure.**"""
    if delimiter not in (AUTO, "tab") and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise UsageError("--csv_delimiter", f"{delimiter!r} cannot separate fields", legal="one character, tab or auto")


@dataclass(frozen=True)
class CsvRule:
    """How a file is read."""

    delimiter: str
    has_quotes: bool  # whether quotes enclose fields (RFC 4180); else they are characters of the text

    def reader(self, stream: BinaryIO) -> CsvReader:
        """Return a reader of a file's rows from its start; bytes that are not UTF-8 become surrogates (PEP 383)."""
        return CsvReader(self, stream)


class CsvReader:
    """Gives the rows of a file that are not blank: their line, their fields, and what is wrong with them."""

    def __init__(self, rule: CsvRule, stream: BinaryIO) -> None:
        csv.field_size_limit(LONGEST_FIELD)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        settings: dict[str, Any] = {"delimiter": rule.delimiter, "strict": True}
        settings["quoting"] = csv.QUOTE_MINIMAL if rule.has_quotes else csv.QUOTE_NONE
        self.reader = csv.reader(text, **settings)

    def __iter__(self) -> Iterator[tuple[int, list[str], str | None]]:
        while True:
            line = self.reader.line_num + 1
            try:
                fields = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, [], f"it cannot be read as csv: {error}"
                continue
            if fields:
                yield line, fields, None


def wrong_width(fields: list[str], width: int) -> str | None:
    """Return what is wrong with a row that has not as many fields as the header, None for one that has. **Pure.**"""
    return None if len(fields) == width else f"it has {len(fields)} fields, the header {width}"


def decide(
    files: Sequence[tuple[str, Path]], kind: str, where: str, *, delimiter: str, quoting: str
) -> tuple[CsvRule, tuple[str, ...]]:
    """Return how files are read, all by one rule, and what of that is not plain, a line each.

    files: of one input, with their names for messages. kind: csv or tsv. where: all of them, for messages. delimiter: a
    character, ``tab`` or auto. quoting: minimal, none or auto. Raises UsageError for two ways to read them.
    """
    notes = []
    separator = {"tab": "\t"}.get(delimiter, delimiter)
    if delimiter == AUTO:
        separator, own = _common_separator(files, kind)
        if separator != own:
            notes.append(f"its fields are separated by {SEPARATORS[separator]} (--csv_delimiter)")
    if quoting != AUTO:
        return CsvRule(separator, quoting == "minimal"), tuple(notes)
    quoted, plain = CsvRule(separator, True), CsvRule(separator, False)
    if not any(_has_quotes(path) for _, path in files):
        return quoted, tuple(notes)
    by_quotes = _try(quoted, files)
    if not by_quotes.error and kind == "csv":  # of such a file it is known that quotes enclose fields, lines and all
        return quoted, tuple(notes)
    as_characters = _try(plain, files)
    if by_quotes.error and not as_characters.error:
        notes.append(f"quotes are characters of its texts (--csv_quoting none): else {by_quotes.error}")
        return plain, tuple(notes)
    if not (by_quotes.error or as_characters.error) and by_quotes.num_rows != as_characters.num_rows:
        raise UsageError(
            where,
            f"it can be read in two ways: {by_quotes.num_rows} rows if quotes enclose fields, {as_characters.num_rows} "
            f"if they are characters of the texts (see {by_quotes.first_long})",
            legal="one reading",
            todo="--csv_quoting minimal or --csv_quoting none",
        )
    if not as_characters.error and by_quotes.content != as_characters.content:
        notes.append(
            "quotes enclose its fields (--csv_quoting minimal); --csv_quoting none: they are a part of the texts"
        )
    return quoted, tuple(notes)


def _common_separator(files: Sequence[tuple[str, Path]], kind: str) -> tuple[str, str]:
    """Return what separates the fields of all headers, and what does so in files of this kind. Raises UsageError."""
    own = "\t" if kind == "tsv" else ","
    found = {name: _separator(path, own) for name, path in files}
    first = next(iter(found))
    for name, separator in found.items():
        if separator != found[first]:
            raise UsageError(
                name,
                f"its fields are separated by {SEPARATORS[separator]}, those of {first} by {SEPARATORS[found[first]]}",
                legal="one kind of file",
                todo="--csv_delimiter for all, or convert some",
            )
    return found[first], own


def _separator(path: Path, own: str) -> str:
    with open_binary(path) as stream:
        header = next(filter(bytes.strip, stream), b"")
    return next((each for each in (own, *SEPARATORS) if each.encode() in header), own)


def _has_quotes(path: Path) -> bool:
    with open_binary(path) as stream:
        return any(b'"' in block for block in iter(lambda: stream.read(1 << 20), b""))


@dataclass(frozen=True)
class _Attempt:
    num_rows: int
    error: str  # of the first row that cannot be read so, with its place; "" if all can
    first_long: str  # where the first row is that goes over several lines, "" if none does
    content: int = 0  # a hash of all fields, if all can be read


def _try(rule: CsvRule, files: Sequence[tuple[str, Path]]) -> _Attempt:
    """Read files by a rule, up to the first row that cannot be read so."""
    num_rows, first_long, content = 0, "", 0
    for name, path in files:
        width = 0
        with open_binary(path) as stream:
            for line, fields, error in rule.reader(stream):
                content = hash((content, *fields))
                num_rows += bool(width)  # the header is none
                width = width or len(fields)
                error = error or wrong_width(fields, width)
                if error:
                    return _Attempt(num_rows, f"{name}:{line}: {error}", first_long)
                if not first_long and any("\n" in each for each in fields):
                    first_long = f"{name}:{line}"
    return _Attempt(num_rows, "", first_long, content)
