"""The CUDA of this machine: its GPUs, its compiler, and what torch was built for. Nothing here needs a driver."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ringtune.launch.commands import output_of

DEFAULT_HOME = Path("/usr/local/cuda")


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: the folder with bin/nvcc in it."""

    home: str
    version: str  # as nvcc names its release, "13.0"

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU that can be used."""
    return Path("/dev/nvidia0").exists() or bool(compute_capabilities())


def compute_capabilities() -> tuple[int, ...]:
    """Return the compute capabilities of the GPUs present, ``(90,)``; nothing where there is no driver."""
    answer = output_of(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    return capabilities(" ".join(re.findall(r"\d+\.\d", answer)))  # of a GPU that has none it says [N/A]


def torch_capabilities() -> tuple[int, ...]:
    """Return the compute capabilities that torch was built for. It is asked in a process of its own (seconds)."""
    code = "import torch; print(torch._C._cuda_getArchFlags())"
    return capabilities(" ".join(re.findall(r"sm_\d+", output_of([sys.executable, "-P", "-c", code]))))


def capabilities(text: str) -> tuple[int, ...]:
    """Return the numbers in ``9.0``, ``80,90`` or ``sm_80 sm_90``, sorted, each once. **Pure.**

    Raises ValueError for anything else.
    """
    found = set()
    for each in re.split(r"[\s,;]+", text.strip()):
        if each:
            match = re.fullmatch(r"(?:sm_)?(\d{1,2})\.?(\d)", each)
            if not match:
                raise ValueError(each)
            found.add(int(match[1] + match[2]))
    return tuple(sorted(found))


def find_toolkit(major: str) -> Toolkit | None:
    """Return the CUDA toolkit to build with: of this major version if there is one, else any, to be named.

    Looked at are ``CUDA_HOME``, which is never replaced by another, or else nvcc on PATH, the toolkit that the package
    ``cuda-toolkit[cccl,nvcc]`` puts beside torch, and /usr/local/cuda.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("HOROVOD_CUDA_HOME")
    found = [each for each in map(_toolkit, [f"{named}/bin/nvcc"] if named else _compilers(major)) if each]
    return next((each for each in found if each.major == major), found[0] if found else None)


def _compilers(major: str) -> Iterable[str]:
    yield shutil.which("nvcc") or ""
    packages = packages_folder(major)
    if (packages / "include" / "cccl").exists():  # a package of its own, without which nothing compiles
        yield str(packages / "bin" / "nvcc")
    yield str(DEFAULT_HOME / "bin" / "nvcc")


def packages_folder(major: str) -> Path:
    """Return the folder in which NVIDIA's Python packages of this major version put their files, beside torch."""
    return _beside_torch() / "nvidia" / f"cu{major}"


def nccl_folder() -> str:
    """Return NCCL's folder: that of HOROVOD_NCCL_HOME, or the one of the package that torch depends on; "" if none."""
    named = os.environ.get("HOROVOD_NCCL_HOME")
    folder = Path(named) if named else _beside_torch() / "nvidia" / "nccl"
    return str(folder) if (folder / "include" / "nccl.h").exists() else ""


def nccl_version(folder: str) -> str:
    """Return the version that NCCL's header names, ``2.29.7``; "" without a folder."""
    if not folder:
        return ""
    header = (Path(folder) / "include" / "nccl.h").read_text(errors="replace")
    parts = [re.search(rf"#define\s+NCCL_{part}\s+(\d+)", header) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(each[1] for each in parts if each)


def _beside_torch() -> Path:
    try:
        return Path(str(metadata.distribution("torch").locate_file("")))
    except metadata.PackageNotFoundError:
        return Path("/nonexistent")


def _toolkit(nvcc: str) -> Toolkit | None:
    """Return the toolkit of a compiler. ``nvcc`` is often a link or a script in another folder: it is asked itself."""
    version = re.search(r"release (\d+\.\d+)", output_of([nvcc, "--version"]) if nvcc else "")
    if not version:
        return None
    top = re.search(r"\bTOP=(.+)", output_of([nvcc, "--dryrun", "-x", "cu", "/dev/null"]))
    home = Path(top[1]) if top else Path(nvcc).resolve().parent.parent
    return Toolkit(str(home.resolve()), version[1])
