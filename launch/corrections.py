"""What is corrected in the built Horovod wheel, and why.

The sources stay untouched; each correction names one string in one file. A string that is not there is an error: the
release is pinned, so it means the table is wrong.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Correction:
    """One string replaced in one file of the wheel."""

    file: str
    old: str
    new: str
    reason: str


CORRECTIONS = (
    Correction(
        "horovod/runner/mpi_run.py",
        "return list(_OMPI_FLAGS), list(_NO_BINDING_ARGS), _OMPI_IMPL",
        "return list(_OMPI_FLAGS), ['--bind-to none', '--map-by slot'], _OMPI_IMPL",
        "Open MPI 5's launcher takes these two options with two dashes only, and reads '-bind-to' as the name of the "
        "program to start; every earlier Open MPI accepts two as well",
    ),
)


def apply(wheel: Path, target: Path, corrections: tuple[Correction, ...] = CORRECTIONS) -> None:
    """Write ``wheel`` with the corrections to ``target``, its RECORD renewed. Raises ValueError for a missing string."""
    with zipfile.ZipFile(wheel) as source:
        contents = {name: source.read(name) for name in source.namelist()}
        infos = {info.filename: info for info in source.infolist()}
    for each in corrections:
        text = contents[each.file].decode("utf-8") if each.file in contents else ""
        if each.old not in text:
            raise ValueError(f"{each.file} has no {each.old!r}: this is not the Horovod the corrections are for")
        contents[each.file] = text.replace(each.old, each.new).encode("utf-8")
    record = next(name for name in contents if name.endswith(".dist-info/RECORD"))
    contents[record] = _renewed(contents, record)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as result:
        for name, content in contents.items():
            result.writestr(infos[name], content, compress_type=zipfile.ZIP_DEFLATED)


def _renewed(contents: dict[str, bytes], record: str) -> bytes:
    """Return the RECORD of these contents (PEP 427: urlsafe base64 of sha256 without padding)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for name, content in contents.items():
        if name == record:
            writer.writerow((name, "", ""))
        elif not name.endswith("/"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            writer.writerow((name, f"sha256={digest}", len(content)))
    return out.getvalue().encode()
