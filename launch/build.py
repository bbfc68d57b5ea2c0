"""Build a Horovod wheel from the pinned sources and their corrections."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringtune.launch import commands, corrections, wheels
from ringtune.launch.commands import search_path
from ringtune.launch.cuda import packages_folder
from ringtune.launch.packages import download
from ringtune.launch.target import Target
from ringtune.launch.toolchain import Toolchain

VERSION = "0.28.1"
PIN = f"horovod=={VERSION} --hash=sha256:92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"


def build(recipe: str, target: Target, tools: Toolchain, folder: Path, jobs: int | None) -> bool:
    """Build the wheel for this target into ``folder``, which appears by one rename; return whether that worked."""
    log = folder.parent / f"{folder.name}.log"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build.") as temporary:
        work = Path(temporary)
        sources = _unpack(download(PIN, work / "archive", source=True), work / "sources")
        corrections.apply(sources, values={"CXX_STANDARD": str(target.cxx_standard)})
        links = _library_links(work / "links", target, tools)
        command = [*commands.module("pip"), "wheel", "--no-build-isolation", "--no-deps", "--no-cache-dir"]
        command += ["--no-index", "-w", str(work / "wheel"), str(sources)]
        gpus = f", CUDA {target.cuda} for {', '.join(map(str, target.capabilities))}" if target.cuda else ""
        print(f"building Horovod {VERSION} for torch {target.torch}, {target.mpi}{gpus}\nlog: {log}", flush=True)
        if _run_showing_time(command, environment(target, tools, links, jobs or os.cpu_count() or 1, os.environ), log):
            print(f"ringtune-launch: horovod: the build failed; the last lines of {log}:", file=sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
            return False
        done = work / "done"
        done.mkdir()
        wheel = next((work / "wheel").glob("horovod-*.whl"))
        os.rename(wheel, done / wheel.name)
        (done / wheels.RECORD).write_text(wheels.record(recipe, target, tools))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(done, folder)
    return True


def environment(target: Target, tools: Toolchain, links: Path, jobs: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the build. **Pure.**

    links: a folder of links to the libraries of CUDA under the names that a linker looks for.
    """
    result = {
        **base,
        "PATH": search_path(base),
        "CXX": tools.compiler,
        "MAKEFLAGS": f"-j{jobs}",
        # Without it, a torch that cannot be used gives a build that succeeds but has no torch support.
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_BUILD_ARCH_FLAGS": target.cpu_flags,
        "RUN_PATH": ";".join(target.run_path),
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses the versions that Horovod's third-party code asks for
    }
    if target.cuda:
        result |= {
            "PATH": os.pathsep.join([f"{tools.cuda_home}/bin", result["PATH"]]),
            "CUDAHOSTCXX": tools.compiler,
            "CUDA_HOME": tools.cuda_home,
            "HOROVOD_CUDA_HOME": tools.cuda_home,
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_BUILD_CUDA_CC_LIST": ",".join(map(str, target.capabilities)),
            "HOROVOD_NCCL_INCLUDE": f"{tools.nccl_home}/include",
            "HOROVOD_NCCL_LIB": str(links),
            "HOROVOD_NCCL_LINK": "SHARED",
            "CMAKE_LIBRARY_PATH": str(links),
            "LIBRARY_PATH": os.pathsep.join(filter(None, [str(links), base.get("LIBRARY_PATH", "")])),
        }
    return result


def _library_links(folder: Path, target: Target, tools: Toolchain) -> Path:
    """Link CUDA's runtime and NCCL under the names and in one folder where a linker looks for them.

    NVIDIA's packages have them as ``lib*.so.N`` only, in a folder ``lib`` where nvcc looks into ``lib64``.
    """
    folder.mkdir()
    if target.cuda:
        homes = [Path(tools.cuda_home), packages_folder(target.cuda.split(".")[0])]
        for name in ("libcudart.so", "libcudart_static.a", "libcudadevrt.a"):
            _link(folder / name, homes)
        _link(folder / "libnccl.so", [Path(tools.nccl_home)])
    return folder


def _link(link: Path, homes: Sequence[Path]) -> None:
    """Link the first library of this name, or of the name and a version, below one of the folders."""
    places = [home / name for home in homes for name in ("lib64", "lib")]
    found = next((each for place in places for each in sorted(place.glob(f"{link.name}*"))), None)
    if found:
        link.symlink_to(found.resolve())


def _unpack(archive: Path, folder: Path) -> Path:
    """Return the one folder inside a source archive."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return next(folder.iterdir())


def _run_showing_time(command: list[str], env: Mapping[str, str], log: Path) -> int:
    started = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=dict(env), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while True:
                try:
                    return process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    print(f"  compiling, {time.monotonic() - started:.0f} s", flush=True)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
