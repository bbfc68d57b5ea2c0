"""The rows of CSV, TSV, JSON and plain text files in order, each with its line and what is wrong with it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ringtune.train.compression import open_binary
from ringtune.train.conll_rows import ConllFile
from ringtune.train.contract import UsageError
from ringtune.train.csv_rule import CsvRule, wrong_width
from ringtune.train.json_rows import JsonFile, Row
from ringtune.train.shapes import WORDS, shape_of

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
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
}
#: Endings that column files have, too: read so where tags of words are asked for.
COLUMN_FILES = dict.fromkeys((".txt", ".tsv"), "conll")
#: Those with a column for the label.
TABLES = {ending: kind for ending, kind in BY_ENDING.items() if kind != "text"}
#: Formats that Arrow reads, with types of their own; they are compressed inside, not as a whole.
TABLE_KINDS = ("parquet", "arrow")
JSON_KINDS = ("json", "jsonl")
CONLL = "conll"
TAGS = "tags"  # what the last column of a column file is called
#: What files that are no text in UTF-8 begin with.
_BEGINNINGS = {
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive, as Excel's files are",
    b"\xd0\xcf\x11\xe0": "a file of Excel or another old program of Office",
    b"PAR1\x15": "a Parquet file",
    b"ARROW1\x00": "an Arrow file",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh91AY": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}


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
        label_name: str = TAGS,
        rule: CsvRule | None = None,
        data_field: str | None = None,
    ) -> None:
        """Read the column names. ``text_name``: what the one column of a plain text file is called, and the first of a
        column file; ``label_name``: its last one.

        rule: of a CSV or TSV file. data_field: of a JSON object, the field with the rows. Raises UsageError for a
        header that cannot be used, or a JSON file without an object.
        """
        self.path, self.kind, self.where, self.rule = path, kind, where, rule
        self.holds_json = kind in (*JSON_KINDS, CONLL)
        self.shapes: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()
        self.lists: frozenset[str] = frozenset()  # names of columns that hold a list in some row
        if kind == "text":
            self.names: tuple[str, ...] = (text_name,)
        elif kind == CONLL:
            self.conll = ConllFile(path, text_name, label_name)
            if next(self.conll.rows(), None) is None:
                raise UsageError(where, "there are no rows in it", legal="a word a line, its tag in the last column")
            self.names = self.conll.names
            self.shapes = dict.fromkeys(self.names, WORDS)
        elif self.holds_json:
            self.json = JsonFile(path, kind, where, data_field)
            self.notes = self.json.notes
            names: dict[str, bool] = {}  # whether they hold a list in some row
            for _, values, _ in self.rows():
                for name, value in values.items():
                    names[name] = names.get(name, False) or isinstance(value, list)
                    if name not in self.shapes and (shape := shape_of(value)):
                        self.shapes[name] = shape
            self.names, self.lists = tuple(names), frozenset(name for name, has_list in names.items() if has_list)
            if not self.names:
                raise UsageError(where, "no row of it is a JSON object", legal='{"text": "...", ...}')
        else:
            self.names = self._csv_header()

    @property
    def has_lines(self) -> bool:
        """Whether rows are known by their line, not only by their number."""
        return self.kind not in JSON_KINDS or self.json.has_lines

    @property
    def reading(self) -> str:
        """How the bytes are read, where that is not plain: another name or setting may read them otherwise."""
        if self.kind in ("text", CONLL):
            return self.kind
        if self.holds_json:
            return self.json.field + "/squad" * self.json.is_squad
        return "" if self.rule == CsvRule(",", True) else str(self.rule)

    def rows(self) -> Iterator[Row]:
        """Give the rows, holding no more of the file than the next row needs."""
        match self.kind:
            case "text":
                return self._text_rows()
            case "conll":
                return self.conll.rows()
            case "csv" | "tsv":
                return self._csv_rows()
        return self.json.rows()

    def _text_rows(self) -> Iterator[Row]:
        with open_binary(self.path) as stream:
            for line, raw in enumerate(stream, start=1):
                text = raw.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8 if line == 1 else b"")
                yield line, {self.names[0]: text.decode("utf-8", "surrogateescape")}, None

    def _csv_header(self) -> tuple[str, ...]:
        assert self.rule is not None
        with open_binary(self.path) as stream:
            _, fields, error = next(iter(self.rule.reader(stream)), (1, [], "there is no header"))
        if error is None:
            bad = next((each for each in "".join(fields) if "\ud800" <= each <= "\udfff"), None)
            error = f"byte 0x{ord(bad) - 0xDC00:02x} is not UTF-8" if bad else None
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


def require_text(path: Path, where: str) -> None:
    """Raise UsageError for a file whose beginning says that it is not text in UTF-8."""
    with open_binary(path) as stream:
        begin = stream.read(4096)
    found = next((what for mark, what in _BEGINNINGS.items() if begin.startswith(mark)), "")
    if not found and begin.count(0) * 4 > len(begin):
        found = "UTF-16 text, or no text"
    if found:
        is_text = found.startswith("UTF")
        how = f"iconv -f {found[:6].strip(' ,')} -t UTF-8 FILE > OTHER" if is_text else "rename or convert it"
        raise UsageError(where, f"it is {found}", legal="text in UTF-8", todo=how)


def require_file(path: Path, where: str) -> None:
    """Raise UsageError if there is no file, or nothing in it."""
    if not path.exists():
        raise UsageError(where, "there is no such file", legal="a file of rows")
    if not path.is_file():
        raise UsageError(where, "it is not a file", legal="a file of rows")
    if path.stat().st_size == 0:
        raise UsageError(where, "the file is empty", legal="a header and at least one row")
