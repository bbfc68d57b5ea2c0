"""What is corrected in Horovod's sources before they are built, and why.

Each correction names one string in one file of the hash-checked release. A string that is not there is an error: the
release is pinned, so it means that the table is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Correction:
    """One string replaced in one file of the sources."""

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
    Correction(
        "horovod/common/gloo/gloo_controller.cc",
        "global_ranks_.reserve(size_);",
        "global_ranks_.resize(size_);",
        "memory that is only reserved is written to and the list stays empty, so that under Gloo the stall check never "
        "names a missing rank and never ends a job that hangs",
    ),
)


def apply(sources: Path, corrections: tuple[Correction, ...] = CORRECTIONS) -> None:
    """Correct the files in an unpacked source folder.

    Raises ValueError for a string that is missing, before anything changes.
    """
    texts = {
        each: (sources / each.file).read_text(encoding="utf-8")
        for each in corrections
        if (sources / each.file).exists()
    }
    for each in corrections:
        if each.old not in texts.get(each, ""):
            raise ValueError(f"{each.file} has no {each.old!r}: this is not the Horovod the corrections are for")
    for each, text in texts.items():
        (sources / each.file).write_text(text.replace(each.old, each.new), encoding="utf-8")
