"""The rows of CSV, TSV, JSON and plain text files in order, each with its line and what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ringtune.train.contract import UsageError

#: Format of a file by its ending.
BY_ENDING = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".txt": "text",
    ".parquet": "parquet",
}
#: Those with a column for the label.
TABLES = {ending: kind for ending, kind in BY_ENDING.items() if kind != "text"}
LONGEST_FIELD = 10_000_000  # characters of a value: an unclosed quote must not swallow the rest of the file
BYTES_PER_READ = 1 << 20
_SHOWN = 60  # characters of a value in a message

Row = tuple[int, Mapping[str, Any], str | None]
"""Line, values by column (as far as they could be read), and what is wrong with the row, None if nothing is."""


class LineFile:
    """A file whose rows are read line by line.

    Values of CSV and text files are texts, those of JSON files what JSON says.
    """

    def __init__(self, path: Path, kind: str, where: str, text_name: str = "text") -> None:
        """Read the column names. ``text_name``: what the one column of a plain text file is called.

        Raises UsageError for a header that cannot be used, or a JSON file without an object.
        """
        self.path, self.kind, self.where = path, kind, where
        self.delimiter = "\t" if kind == "tsv" else ","
        self.holds_json = kind in ("json", "jsonl")
        if kind == "text":
            self.names: tuple[str, ...] = (text_name,)
        elif self.holds_json:
            self.names = tuple(dict.fromkeys(name for _, values, _ in self.rows() for name in values))
            if not self.names:
                raise UsageError(where, "no row of it is a JSON object", legal='{"text": "...", ...}')
        else:
            self.names = self._csv_header()

    def rows(self) -> Iterator[Row]:
        """Give the rows, holding no more of the file than the next row needs."""
        match self.kind:
            case "text":
                return self._text_rows()
            case "csv" | "tsv":
                return self._csv_rows()
        return _json_array(self.path, self.where) if _is_json_array(self.path) else _json_lines(self.path)

    def _text_rows(self) -> Iterator[Row]:
        with self.path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                yield line, {self.names[0]: raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")}, None

    def _csv_header(self) -> tuple[str, ...]:
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            try:
                reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
                header = tuple(next(filter(None, reader), ()))
                "".join(header).encode()
            except (csv.Error, UnicodeEncodeError) as error:
                raise UsageError(
                    f"{self.where}:1", f"the header cannot be read: {error}", legal="names of columns, UTF-8"
                ) from None
        if not header:
            raise UsageError(f"{self.where}:1", "there is no header", legal="a name for each column")
        return header

    def _csv_rows(self) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_FIELD)
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
            next(filter(None, reader))  # the header
            while True:
                line = reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, {}, f"it cannot be read as csv: {error}"
                    continue
                if fields:  # a blank line is no row
                    wrong = len(fields) != len(self.names)
                    error_text = f"it has {len(fields)} fields, the header {len(self.names)}" if wrong else None
                    yield line, dict(zip(self.names, fields, strict=False)), error_text


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_file(path: Path, where: str) -> None:
    """Raise UsageError if there is no file, or nothing in it."""
    if not path.exists():
        raise UsageError(where, "there is no such file", legal="a file of rows")
    if not path.is_file():
        raise UsageError(where, "it is not a file", legal="a file of rows")
    if path.stat().st_size == 0:
        raise UsageError(where, "the file is empty", legal="a header and at least one row")


def shown(value: Any) -> str:
    """Return a value as a message shows it, in printable ASCII and not too long. **Pure.**"""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


# JSON


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
    return (value, None) if isinstance(value, dict) else ({}, f"it is {shown(value)}, not a JSON object")


def _is_json_array(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _json_array(path: Path, where: str) -> Iterator[Row]:
    """Yield the elements of one array, reading no more than the next one needs. Rows have numbers, no lines."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        text = stream.read(BYTES_PER_READ).lstrip()[1:]
        number = 0
        while True:
            number += 1
            text = text.lstrip(" \t\r\n")
            element = _next_element(text, stream.read, f"{where}: row {number}")
            if element is None:
                return
            value, rest = element
            yield number, *_checked_object(value)
            text = rest.lstrip(" \t\r\n") or stream.read(BYTES_PER_READ)
            text = text.lstrip(" \t\r\n").removeprefix(",")


def _next_element(text: str, read: Callable[[int], str], where: str) -> tuple[Any, str] | None:
    """Return the next element of an array and the text behind it, None at the array's end. Raises UsageError."""
    decoder = json.JSONDecoder()
    while True:
        try:
            if text.startswith("]"):
                return None
            value, end = decoder.raw_decode(text)
            if end == len(text):  # a number may go on in what is not read yet
                raise ValueError("the array does not end")
            return value, text[end:]
        except (ValueError, RecursionError) as error:
            more = read(BYTES_PER_READ) if len(text) < LONGEST_FIELD else ""
            if not more:
                raise UsageError(
                    where,
                    f"it is not JSON: {error}",
                    legal="an array of objects",
                    todo="a .jsonl file may have broken rows",
                ) from None
            text = (text + more).lstrip(" \t\r\n")
