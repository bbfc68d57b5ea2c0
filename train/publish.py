"""Files and folders that are complete or not there: written under a temporary name, published by one rename, verified.

A folder carries ``manifest.json``, written last: the size and sha256 of each of its files. A single file carries the
sha256 of its content in its name: ``part-00000012.<sha256>.arrow``. Whatever a crash leaves behind has another name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ringtune.train import disk
from ringtune.train.contract import LEFT_BEHIND, MANIFEST_FILE

A_DAY_S = 86_400
_FILE_NAME = re.compile(r"([a-z]+(?:-\d+)?)\.([0-9a-f]{64})\.arrow")


def unique_suffix() -> str:
    """Return a word that no other writer uses, on this host or another one."""
    process = "-".join(filter(None, (str(os.getpid()), _namespace())))
    return f"{socket.gethostname()}.{process}.{threading.get_ident()}.{uuid.uuid4().hex[:8]}"


def _namespace() -> str:
    """Return what tells this process's numbers of processes from those of another container, which may have the same
    host name; "" where the system does not say it."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


# Folders


Entry = dict[str, int | str]
"""Size and sha256 of a file, as a manifest holds them."""


class Checksum:
    """Size and sha256 of content that comes in pieces."""

    def __init__(self) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()

    def add(self, content: bytes | memoryview) -> None:
        """Count bytes that follow."""
        self.size += len(content)
        self.sha256.update(content)

    def entry(self) -> Entry:
        """Return what a manifest holds of the content so far."""
        return {"bytes": self.size, "sha256": self.sha256.hexdigest()}


def entry_of(content: bytes | memoryview) -> Entry:
    """Return what a manifest holds of content. **Pure.**"""
    checksum = Checksum()
    checksum.add(content)
    return checksum.entry()


def manifest_bytes(entries: Mapping[str, Entry]) -> bytes:
    """Return the content of ``manifest.json``. entries: by name of the file. **Pure.**"""
    return json.dumps(entries, indent=1).encode()


class HashedFile:
    """A file being written, with its checksum so far."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.checksum = Checksum()

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes."""
        self.stream.write(content)
        self.checksum.add(content)


class NewFolder:
    """A folder being written; it becomes visible under its name when all files are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Entry] = {}

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write one file and flush it to the device."""
        disk.write_bytes(self.path / name, content)
        self.manifest[name] = entry_of(content)

    def take_over(self, path: Path, name: str, entry: Entry) -> None:
        """Move a file here that is on the device already. entry: its checksum."""
        disk.rename(path, self.path / name)
        self.manifest[name] = entry

    @contextmanager
    def open(self, name: str) -> Iterator[HashedFile]:
        """Give a file to write in pieces; it is flushed to the device at the end."""
        with (self.path / name).open("wb") as stream:
            file = HashedFile(stream)
            yield file
            stream.flush()
            disk.fsync(stream.fileno())
        self.manifest[name] = file.checksum.entry()


@contextmanager
def new_folder(target: Path) -> Iterator[NewFolder]:
    """Give a folder to fill; publish it as ``target`` when the block ends, remove it if the block fails.

    A crash at any point leaves the target as it was or complete. A whole target that is there already is kept: of two
    writers the first one wins; a damaged one is replaced. Raises OSError.
    """
    suffix = unique_suffix()
    temporary = target.with_name(f".{target.name}.{suffix}.tmp")
    try:
        temporary.mkdir(parents=True)
        new = NewFolder(temporary)
        yield new
        disk.write_bytes(temporary / MANIFEST_FILE, manifest_bytes(new.manifest))
        disk.sync_folder(temporary)
        _publish_folder(temporary, target, target.with_name(f".{target.name}.{suffix}.old"))
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _publish_folder(temporary: Path, target: Path, aside: Path) -> None:
    if target.exists() or target.is_symlink():
        if verify_folder(target) is None:
            shutil.rmtree(temporary)
            return
        # Renamed before it is deleted: nobody ever opens a half-deleted folder under the target's name.
        disk.rename(target, aside)
    try:
        disk.rename(temporary, target)
    except OSError:
        if verify_folder(target) is not None:  # not another writer's whole folder, but a real failure
            raise
        shutil.rmtree(temporary)
    remove(aside)


def verify_folder(
    path: Path, required: Collection[str] = (), *, read_up_to: float = math.inf, unread: re.Pattern[str] | None = None
) -> str | None:
    """Return why a folder is not whole, None if it is. Reads every byte, but of files of more bytes than ``read_up_to``
    the size alone.

    required: names of files that the manifest must list. unread: those of files whose size is enough, too.
    """
    if not path.is_dir():
        return "it is not a folder"
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        expected = {str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in manifest.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST_FILE}: its writing never ended"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST_FILE} cannot be read: {error}"
    for name in required:
        if name not in expected:
            return f"{MANIFEST_FILE} does not list {name}"
    for name, (size, sha256) in expected.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        found = (path / name).stat().st_size
        if found != size:
            return f"{name} has {found} of {size} bytes"
        is_read = size <= read_up_to and not (unread and unread.fullmatch(name))
        if is_read and file_sha256(path / name) != sha256:
            return f"{name} is not what was written: its sha256 differs"
    return None


def is_as_written(path: Path, entry: Any) -> bool:
    """Return whether a file is there as an entry of a manifest has it."""
    try:
        return path.stat().st_size == entry["bytes"] and file_sha256(path) == entry["sha256"]
    except (OSError, TypeError, KeyError):
        return False


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def left_behind(folder: Path, of: str = "") -> list[Path]:
    """Return what killed writers may have left in a folder, sorted; nothing where there is none.

    of: beginning of the names whose temporaries are meant, in a folder that has others.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(each for each in found if LEFT_BEHIND.fullmatch(each.name) and each.name.startswith(f".{of}"))


def remove_left_behind(folder: Path, of: str = "") -> None:
    """Remove what `left_behind` names. Only while no other writer is alive."""
    for path in left_behind(folder, of):
        remove(path)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in a folder that others may write to now: by processes of this host and
    container that are gone, and by those that cannot be seen from here if it is older than a day."""
    for path in left_behind(folder):
        with suppress(FileNotFoundError):  # its writer has just published it, or another one removed it
            if _is_abandoned(path):
                remove(path)


def _is_abandoned(path: Path) -> bool:
    before_process, process, *_ = path.name.rsplit(".", 4)  # as `unique_suffix` makes them
    pid, _, namespace = process.partition("-")  # that of an earlier version of ringtune has no namespace
    is_seen = before_process.endswith(f".{socket.gethostname()}") and namespace and namespace == _namespace()
    if is_seen and pid.isdigit():
        return not _is_alive(int(pid))
    return time.time() - path.stat().st_mtime > A_DAY_S


def _is_alive(pid: int) -> bool:
    """Return whether a process of this container is there. /proc may hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


# Files


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def temporary_file(folder: Path, stem: str) -> Path:
    """Return a path in the folder that no other writer uses."""
    return folder / f".{stem}.{unique_suffix()}.tmp"


def write_file(folder: Path, stem: str, content: bytes | memoryview) -> Path:
    """Publish content as ``STEM.<sha256>.arrow``; return the path. A crash leaves all of it or none."""
    path = temporary_file(folder, stem)
    try:
        disk.write_bytes(path, content)
        return disk.rename(path, folder / f"{stem}.{hashlib.sha256(content).hexdigest()}.arrow")
    finally:
        path.unlink(missing_ok=True)


def publish_file(path: Path, stem: str) -> Path:
    """Publish a file that was written in pieces under a temporary name; return its new path."""
    disk.flush(path)
    return disk.rename(path, path.with_name(f"{stem}.{file_sha256(path)}.arrow"))


def list_files(folder: Path) -> dict[str, Path]:
    """Return the published files of a folder by stem, without reading them."""
    matches = ((_FILE_NAME.fullmatch(each.name), Path(each.path)) for each in os.scandir(folder))
    return {match[1]: path for match, path in matches if match}


def verify_file(path: Path) -> str | None:
    """Return what is wrong with a published file, None if it is whole. Reads every byte."""
    match = _FILE_NAME.fullmatch(path.name)
    return None if match and match[2] == file_sha256(path) else "it is not what was written: its sha256 differs"
