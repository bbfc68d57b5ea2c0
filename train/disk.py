"""Every way in which ringtune changes a disk, so that tests can make each one fail.

Data that must survive a crash is flushed to the device before a rename makes it visible.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the path in an OSError that names none, as those of a write or flush."""
    try:
        yield
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise type(error)(error.errno, os.strerror(error.errno), str(path)) from None


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file and flush it to the device. Raises OSError, naming the file."""
    with named(path), path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        fsync(stream.fileno())


def append(path: Path, content: bytes) -> None:
    """Append to a file in one write. Raises OSError, naming the file."""
    with named(path), path.open("ab", buffering=0) as stream:
        stream.write(content)


def fsync(descriptor: int) -> None:
    """Flush a file or folder to the device."""
    os.fsync(descriptor)


def flush(path: Path) -> None:
    """Flush to the device what was written to a file by other means."""
    with path.open("rb") as stream:
        fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the device: a rename is not durable before that (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> Path:
    """Rename atomically within a file system, flush the folder and return the target."""
    os.rename(source, target)
    sync_folder(target.parent)
    return target


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file's content in one step: readers, and a crash, find the old or the new content, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_bytes(temporary, content)
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file's content in one step, as UTF-8."""
    replace_file(path, text.encode("utf-8"))
