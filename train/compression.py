"""Compressed files, read as what they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ringtune.train.contract import UsageError

BYTES_PER_READ = 1 << 20


def _open_zstd(path: Path) -> Any:
    import pyarrow as pa  # slow to import, and only needed here; Python's own library reads Zstandard from 3.14

    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


#: How to open a file by its last ending.
OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
_DAMAGED = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)  # a ValueError is Arrow's


def open_binary(path: Path) -> BinaryIO:
    """Open a file at its start, decompressed if its ending says that it is compressed."""
    if path.suffix.lower() not in OPENERS:
        return path.open("rb")
    return io.BufferedReader(_Decompressed(path), BYTES_PER_READ)


def is_compressed(path: Path) -> bool:
    """Return whether a file's ending says that it is compressed. **Pure.**"""
    return path.suffix.lower() in OPENERS


def plain_ending(path: Path) -> str:
    """Return the ending that says what a file holds, ``.csv`` of ``rows.csv.gz``. **Pure.**"""
    return (Path(path.stem) if is_compressed(path) else path).suffix.lower()


class _Decompressed(io.RawIOBase):
    """The content of a compressed file. Reading raises UsageError where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = OPENERS[path.suffix.lower()](path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self.stream.read(len(buffer))
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno:  # of the disk, not of the content
                raise
            raise UsageError(str(self.path), f"it cannot be decompressed: {error}", legal="a whole file") from None
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()
