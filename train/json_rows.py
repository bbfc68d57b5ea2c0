"""The rows of JSON files: an object a line, one array of objects, or such an array in a field of one object."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ringtune.train import squad_json, text_names
from ringtune.train.compression import open_binary
from ringtune.train.contract import UsageError
from ringtune.train.csv_rule import LONGEST_FIELD
from ringtune.train.repeated_keys import Twice, with_keys_once

BYTES_PER_READ = 1 << 20
MOST_BYTES = 2 << 30  # of a file that is one object, which is read as a whole
_SHOWN = 60  # characters of a value in a message

Row = tuple[int, Mapping[str, Any], str | None]
"""Line, values by column (as far as they could be read), and what is wrong with the row, None if nothing is."""


class JsonFile:
    """The rows of one file; how it holds them is found out from its beginning."""

    def __init__(self, path: Path, kind: str, where: str, data_field: str | None) -> None:
        """data_field: the field of one object that holds the rows, ``a.b`` for one inside another; None: find it.

        Raises UsageError for an object that does not say which of its fields holds rows.
        """
        self.path, self.where = path, where
        self.field, self.is_squad = "", False
        self.notes: tuple[str, ...] = ()
        with open_binary(path) as stream:
            begin = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        self.is_array = begin == b"[" and not (kind == "jsonl" and _has_a_list_a_line(path))
        if data_field or (kind == "json" and begin == b"{" and not _holds_lines(path)):
            whole = self._whole()
            self.field = data_field or self._field(whole)
            self.notes = (f"its rows are those of the field {self.field!r} (--data_field)",) * (not data_field)
            self.is_squad = squad_json.holds_articles(self._list(whole))
            if self.is_squad:
                self.notes = ("a file of SQuAD: a row is a question",)

    @property
    def has_lines(self) -> bool:
        """Whether a row is known by its line, not only by its number."""
        return not self.is_array and not self.field

    def rows(self) -> Iterator[Row]:
        """Give the rows."""
        if self.is_squad:
            found = squad_json.questions(self._list(self._whole()))
            return ((number, values, error) for number, (values, error) in enumerate(found, start=1))
        if self.field:
            return ((number, *_checked_object(each)) for number, each in enumerate(self._list(self._whole()), start=1))
        return _json_array(self.path, self.where) if self.is_array else _json_lines(self.path)

    def _field(self, whole: Mapping[str, Any]) -> str:
        """Return the name of the only field that can hold the rows of an object."""
        found = [name for name, value in whole.items() if _is_list_of_objects(value)]
        if len(found) == 1:
            self._refuse_a_row(whole, found[0])
            return found[0]
        names = ", ".join(str(name)[:40] for name in list(whole)[:8])
        if not found and whole and all(isinstance(value, (dict, list)) for value in whole.values()):
            raise UsageError(
                self.where,
                f"it is one object of columns ({names}), as pandas' to_json() writes a table",
                legal="an object a line, or an array of objects",
                todo='write it with orient="records", lines=True',
            )
        raise UsageError(
            self.where,
            f"it is one object, and {len(found) or 'none'} of its fields hold{'' if found else 's'} a list of objects "
            f"(it has {names})",
            legal="rows in one field",
            todo="--data_field NAME",
        )

    def _refuse_a_row(self, whole: Mapping[str, Any], field: str) -> None:
        """Raise UsageError for an object that may as well be the only row: it has a text beside its list."""
        names = text_names.of_a_row(whole)
        if names:
            raise UsageError(
                self.where,
                f"it is one object with a text ({', '.join(names)}) and a list of objects ({field[:40]}): is it a row, "
                "or has it rows",
                legal="rows in one field, or a row a line",
                todo=f"--data_field {field[:40]} if that list holds the rows; "
                "if it is one row, name the file .jsonl and write it on one line",
            )

    def _list(self, whole: Mapping[str, Any]) -> list[Any]:
        """Return the rows."""
        value: Any = whole
        for name in self.field.split("."):
            if isinstance(value, Twice) and name in value.own:
                raise UsageError(self.where, f"it has the key {shown(name)} twice", legal="each key once")
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, list):
            raise UsageError(f"--data_field {self.field}", f"there is no list of that name in {self.where}")
        return value

    def _whole(self) -> Mapping[str, Any]:
        if self.path.stat().st_size > MOST_BYTES:
            raise UsageError(self.where, "it is one object of more than 2 GiB", todo="write an object a line (.jsonl)")
        with open_binary(self.path) as stream:
            try:
                value = _parse(stream.read().decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise UsageError(self.where, f"it is not JSON: {str(error)[:100]}", legal="an object a line") from None
        if not isinstance(value, dict):
            raise UsageError(self.where, f"it is {shown(value)}, not a JSON object", legal="an object with rows")
        return value


def _holds_lines(path: Path) -> bool:
    """Return whether a file that begins with an object has one on each line, the first of them whole."""
    first, has_more = _first_line(path)
    try:
        value = _parse(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        # One that goes over several lines: not one line that is broken.
        return first.strip() not in (b"{", b"\xef\xbb\xbf{") and not first.rstrip().endswith((b",", b"[", b"{"))
    if has_more or not isinstance(value, dict):
        return True
    is_table = bool(value) and all(isinstance(each, (dict, list)) for each in value.values())
    return not is_table and not any(map(_is_list_of_objects, value.values()))


def _has_a_list_a_line(path: Path) -> bool:
    """Return whether a file that begins with a list has other lines behind it: lists are wrong rows, not the table."""
    first, has_more = _first_line(path)
    try:
        _parse(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return has_more


def _first_line(path: Path) -> tuple[bytes, bool]:
    """Return the first line that is not blank, b"" where there is none, and whether there is another one."""
    with open_binary(path) as stream:
        lines = filter(bytes.strip, stream)
        return next(lines, b""), next(lines, None) is not None


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def shown(value: Any) -> str:
    """Return a value as a message shows it, in printable characters and not too long. **Pure.**"""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _json_lines(path: Path) -> Iterator[Row]:
    with open_binary(path) as stream:
        for line, raw in enumerate(stream, start=1):
            if raw.strip():
                yield line, *_json_object(raw)


def _json_object(raw: bytes) -> tuple[Mapping[str, Any], str | None]:
    try:
        value = _parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return {}, f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8"
    except json.JSONDecodeError as error:
        return {}, f"it is not JSON: {error.msg}, character {error.pos + 1}"
    except ValueError:  # Python's own limit on the digits of a number
        return {}, "it is not JSON that can be read: a number has thousands of digits"
    except RecursionError:
        return {}, "it is not JSON that can be read: it is nested too deeply"
    return _checked_object(value)


_parse = functools.partial(json.loads, object_pairs_hook=with_keys_once)


def _checked_object(value: Any) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(value, Twice):
        return value, f"it has the key {shown(value.key)} twice"
    return (value, None) if isinstance(value, dict) else ({}, f"it is {shown(value)}, not a JSON object")


class _Array:
    """The elements of one array, reading no more of its file than the next one needs."""

    def __init__(self, stream: TextIO, where: str) -> None:
        self.stream, self.where = stream, where
        self.text, self.position = "", 0  # what is read, and how much of it is done with
        self.decoder = json.JSONDecoder(object_pairs_hook=with_keys_once)

    def __iter__(self) -> Iterator[Any]:
        self._next_character()  # [
        self.position += 1
        number = 0
        while number or self._next_character() != "]":
            number += 1
            yield self._element(f"{self.where}: row {number}")
            behind = self._next_character()
            if behind == "]":
                break
            if behind != ",":
                wrong = "there is no comma behind it" if behind else "the array does not end"
                raise _no_array(f"{self.where}: row {number}", wrong)
            self.position += 1
        self.position += 1
        if self._next_character():
            raise _no_array(self.where, f"there is more behind the array of its {number} rows")

    def _next_character(self) -> str:
        """Go to the next character that is not blank and return it, "" at the end of the file."""
        while True:
            while self.text[self.position : self.position + 1] in (" ", "\t", "\r", "\n"):
                self.position += 1
            if self.position < len(self.text) or not self._read_more():
                return self.text[self.position : self.position + 1]

    def _read_more(self) -> bool:
        more = self.stream.read(BYTES_PER_READ)
        self.text, self.position = self.text[self.position :] + more, 0
        return bool(more)

    def _element(self, where: str) -> Any:
        """Return the next element. Raises UsageError for what is none."""
        while True:
            self._next_character()
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
                if end == len(self.text):  # a number may go on in what is not read yet
                    raise ValueError("the array does not end")
                self.position = end
                return value
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.position >= LONGEST_FIELD or not self._read_more():
                    raise _no_array(where, getattr(error, "msg", str(error))[:100]) from None


def _no_array(where: str, error: str) -> UsageError:
    return UsageError(
        where, f"it is not JSON: {error}", legal="one array of objects", todo="a .jsonl file may have broken rows"
    )


def _json_array(path: Path, where: str) -> Iterator[Row]:
    """Yield the elements of one array. Rows have numbers, no lines."""
    with io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, value in enumerate(_Array(stream, where), start=1):
            yield number, *_checked_object(value)
