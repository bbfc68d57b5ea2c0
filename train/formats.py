"""The rows of CSV, TSV, JSON and plain text files in order, each with its line and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ringtune.train.compression import open_binary
from ringtune.train.contract import UsageError
from ringtune.train.csv_rule import CsvRule, wrong_width
from ringtune.train.json_rows import JsonFile, Row

#: Format of a file by its ending.
BY_ENDING = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".txt": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
#: Those with a column for the label.
TABLES = {ending: kind for ending, kind in BY_ENDING.items() if kind != "text"}
#: Formats that Arrow reads, with types of their own; they are compressed inside, not as a whole.
TABLE_KINDS = ("parquet", "arrow")
JSON_KINDS = ("json", "jsonl")


class LineFile:
    """A file whose rows are read line by line.

    Values of CSV and text files are texts, those of JSON files what JSON says.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        where: str,
        text_name: str = "text",
        *,
        rule: CsvRule | None = None,
        data_field: str | None = None,
    ) -> None:
        """Read the column names. ``text_name``: what the one column of a plain text file is called.

        rule: of a CSV or TSV file. data_field: of a JSON object, the field with the rows. Raises UsageError for a
        header that cannot be used, or a JSON file without an object.
        """
        self.path, self.kind, self.where, self.rule = path, kind, where, rule
        self.holds_json = kind in JSON_KINDS
        self.notes: tuple[str, ...] = ()
        if kind == "text":
            self.names: tuple[str, ...] = (text_name,)
        elif self.holds_json:
            self.json = JsonFile(path, kind, where, data_field)
            self.notes = self.json.notes
            self.names = tuple(dict.fromkeys(name for _, values, _ in self.rows() for name in values))
            if not self.names:
                raise UsageError(where, "no row of it is a JSON object", legal='{"text": "...", ...}')
        else:
            self.names = self._csv_header()

    @property
    def has_lines(self) -> bool:
        """Whether rows are known by their line, not only by their number."""
        return not self.holds_json or self.json.has_lines

    def rows(self) -> Iterator[Row]:
        """Give the rows, holding no more of the file than the next row needs."""
        match self.kind:
            case "text":
                return self._text_rows()
            case "csv" | "tsv":
                return self._csv_rows()
        return self.json.rows()

    def _text_rows(self) -> Iterator[Row]:
        with open_binary(self.path) as stream:
            for line, raw in enumerate(stream, start=1):
                yield line, {self.names[0]: raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")}, None

    def _csv_header(self) -> tuple[str, ...]:
        assert self.rule is not None
        with open_binary(self.path) as stream:
            _, fields, error = next(iter(self.rule.reader(stream)), (1, [], "there is no header"))
        if error is None:
            try:
                "".join(fields).encode()
            except UnicodeEncodeError as wrong:
                error = str(wrong)
        if error is not None:
            raise UsageError(
                f"{self.where}:1", f"the header cannot be read: {error}", legal="names of columns, UTF-8"
            ) from None
        return tuple(fields)

    def _csv_rows(self) -> Iterator[Row]:
        assert self.rule is not None
        with open_binary(self.path) as stream:
            rows = iter(self.rule.reader(stream))
            next(rows)  # the header
            for line, fields, error in rows:
                values = dict(zip(self.names, fields, strict=False))
                yield line, values, error or wrong_width(fields, len(self.names))


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
