"""Files that carry the sha256 of their content in their name: one rename publishes both, and damage is noticed.

``part-00000012.<sha256>.arrow`` is whole or not there; whatever a crash leaves behind has another name.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
from pathlib import Path

from ringtune.train import disk

_NAME = re.compile(r"([a-z]+(?:-\d+)?)\.([0-9a-f]{64})\.arrow")
_TEMPORARY = re.compile(r"\..*\.tmp")


def temporary(folder: Path, stem: str) -> Path:
    """Return a name in the folder that no other writer has."""
    return folder / f".{stem}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.tmp"


def write(folder: Path, stem: str, content: bytes | memoryview) -> Path:
    """Publish a file; return its path. Survives a crash at any point."""
    path = temporary(folder, stem)
    try:
        disk.write_bytes(path, content)
        return disk.rename(path, folder / f"{stem}.{hashlib.sha256(content).hexdigest()}.arrow")
    finally:
        path.unlink(missing_ok=True)


def seal(path: Path, stem: str) -> Path:
    """Publish a file that was written, under a temporary name, piece by piece; return its path."""
    with path.open("rb") as stream:
        disk.fsync(stream.fileno())
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return disk.rename(path, path.with_name(f"{stem}.{sha256}.arrow"))


def listed(folder: Path) -> dict[str, Path]:
    """Return the published files of a folder by stem. None of their bytes are read."""
    matches = ((_NAME.fullmatch(each.name), Path(each.path)) for each in os.scandir(folder))
    return {match[1]: path for match, path in matches if match}


def damage(path: Path) -> str | None:
    """Return what is wrong with a published file, None if it is whole. Reads every byte."""
    match = _NAME.fullmatch(path.name)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if match and match[2] == found else "it is not what was written: its sha256 differs"


def clean_stale(folder: Path) -> None:
    """Remove what crashed writers left. Only while no other writer lives."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()
