"""The rows of column files, as CoNLL's tasks have them: a word a line, its tag in a column behind it, a blank line
between sentences; lines of ``-DOCSTART-`` are skipped."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from ringtune.train.compression import open_binary
from ringtune.train.json_rows import Row

START = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")  # others, such as a no-break space, are characters of a word


class ConllFile:
    """The rows of one file. Columns are parted by tabs if the first line of a word has one, else by blanks."""

    def __init__(self, path: Path, words_name: str, tags_name: str) -> None:
        """words_name, tags_name: what the first and the last column are called; those between are called 2, 3, ..."""
        self.path = path
        first = next((line for _, line in self._lines() if line), "")
        self.has_tabs = "\t" in first
        width = len(self._fields(first))
        last = str(width) if tags_name.isdigit() else tags_name
        self.names = (words_name, *map(str, range(2, width)), last)[: max(1, width)]

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Give line number and text of each line, "" for one that ends a sentence."""
        with open_binary(self.path) as stream:
            for number, raw in enumerate(stream, start=1):
                raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
                yield number, "" if _BLANKS.split(line.strip(" \t"))[0] in ("", START) else line

    def _fields(self, line: str) -> list[str]:
        """Return the columns of a line; blanks beside a tag are none of its letters."""
        if not self.has_tabs:
            return _BLANKS.split(line.strip(" \t"))
        word, *others = line.split("\t")
        return [word, *(each.strip(" ") for each in others)]

    def rows(self) -> Iterator[Row]:
        """Give a row for each sentence, each column a list; its line is that of its first word."""
        words: list[list[str]] = []
        first, error = 0, None
        for number, fields in self.lines():
            if fields:
                if len(fields) != len(self.names) and error is None:
                    error = f"line {number} has {len(fields)} columns, the first one {len(self.names)}"
                first = first or number
                if error is None:  # else what is read is not kept: in a file of another kind it may be all of it
                    words.append(fields)
            elif first:
                yield self._row(first, words, error)
                words, first, error = [], 0, None
        if first:
            yield self._row(first, words, error)

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Give line number and columns of each line, none for one that ends a sentence."""
        for number, line in self._lines():
            yield number, self._fields(line) if line else []

    def _row(self, line: int, words: list[list[str]], error: str | None) -> Row:
        if error is not None:
            return line, {}, error
        columns = map(list, zip(*words, strict=True))
        return line, dict(zip(self.names, columns, strict=True)), None
