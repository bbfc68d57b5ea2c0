"""Provide a Horovod that works with the torch and MPI of this environment: build, cache, install, verify."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from ringtune.launch import corrections, toolchain
from ringtune.launch.packages import download
from ringtune.launch.toolchain import Toolchain
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, cache_folder

VERSION = "0.28.1"
PIN = f"horovod=={VERSION} --hash=sha256:92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
MARKER = "ringtune-key"  # file in the installed package's metadata: the key of the wheel that is installed
VERIFY_LIMIT_S = 120
#: Run by two ranks: each gets the sum of both.
VERIFY_CODE = (
    "import torch, horovod.torch as hvd; hvd.init(); n = hvd.size();"
    "total = hvd.allreduce(torch.full((3,), float(hvd.rank() + 1)), op=hvd.Sum, name='verify');"
    "assert n == 2 and total.tolist() == [3.0] * 3, (n, total)"
)


def provide(*, cache_dir: Path | None, dry_run: bool, force: bool, jobs: int | None, verify: bool) -> int:
    """Make ``import horovod.torch`` work here and return the exit code.

    Survives a crash at any point: the wheel enters the cache by one rename, under a lock. Raises UsageError for
    whatever is missing, before anything is built.
    """
    cache = cache_folder(cache_dir) / "horovod"
    tools = toolchain.find(cache)
    key = tools.key(recipe())
    folder = cache / key
    if dry_run:
        return _show(tools, folder)
    if _installed_key() == key and not force:
        print(f"Horovod {VERSION} for torch {tools.torch} and {tools.mpi} is installed already ({key})")
    else:
        with _lock(cache / f"{key}.lock"):
            if force:
                shutil.rmtree(folder, ignore_errors=True)
            if not (folder / "built").exists() and not _build(tools, folder, jobs):
                return EXIT_FAILED
        _install(next(folder.glob("*.whl")), key)
    return _verify() if verify else EXIT_FINISHED


def recipe() -> str:
    """Return the pinned release and its corrections as text, which is part of the wheel's cache key. **Pure.**"""
    return json.dumps([PIN, [asdict(each) for each in corrections.CORRECTIONS]])


def environment(tools: Toolchain, wrapper: Path, jobs: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the build. **Pure.**"""
    result = {
        **base,
        "PATH": toolchain.search_path(base),
        "CXX": str(wrapper),
        "MAKEFLAGS": f"-j{jobs}",
        # Without it, a torch that cannot be used gives a build that succeeds but has no torch support.
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses the versions that Horovod's third-party code asks for
    }
    if tools.uses_cuda:
        result |= {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_CUDA_HOME": str(Path(tools.nvcc).parent.parent)}
        if tools.nccl_home:
            result["HOROVOD_NCCL_HOME"] = tools.nccl_home
    return result


def _show(tools: Toolchain, folder: Path) -> int:
    for name, value in asdict(tools).items():
        print(f"{name:17} {value or '-'}")
    state = (
        "in the cache: nothing to build" if (folder / "built").exists() else "to be built (2 to 4 minutes on two cores)"
    )
    print(f"wheel             {folder}\nstate             {state}")
    for each in corrections.CORRECTIONS:
        print(f"correction        {each.file}: {each.reason}")
    return EXIT_FINISHED


def _build(tools: Toolchain, folder: Path, jobs: int | None) -> bool:
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build.") as temporary:
        work = Path(temporary)
        sources = _unpack(download(PIN, work / "archive", source=True), work / "sources")
        corrections.apply(sources)
        wrapper = _compiler_wrapper(work / "c++", tools)
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-build-isolation",
            "--no-deps",
            "--no-cache-dir",
            "--no-index",
            "-w",
            str(work / "wheel"),
            str(sources),
        ]
        print(
            f"building Horovod {VERSION} for torch {tools.torch}, {tools.mpi}" + (", CUDA" if tools.uses_cuda else "")
        )
        print(f"log: {log}", flush=True)
        env = environment(tools, wrapper, jobs or os.cpu_count() or 1, os.environ)
        if _run_showing_time(command, env, log):
            print(f"ringtune-launch: horovod: the build failed; the last lines of {log}:", file=sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
            return False
        done = work / "done"
        done.mkdir()
        wheel = next((work / "wheel").glob("horovod-*.whl"))
        os.rename(wheel, done / wheel.name)
        (done / "built").write_text(json.dumps(asdict(tools), indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # without "built" it is incomplete
        os.rename(done, folder)
    return True


def _unpack(archive: Path, folder: Path) -> Path:
    """Return the one folder inside a source archive."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return next(folder.iterdir())


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time build a wheel; the kernel releases the lock when its holder ends (flock(2))."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _compiler_wrapper(path: Path, tools: Toolchain) -> Path:
    """Write a script that calls the compiler with the C++ standard that torch needs, and return its path.

    Horovod asks for C++14, torch's headers need a later one, and of several -std options the last one counts.
    """
    path.write_text(f'#!/bin/sh\nexec "{tools.compiler}" "$@" -std=c++{tools.cxx_standard}\n')
    path.chmod(0o755)
    return path


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


def _install(wheel: Path, key: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)],
        check=True,
    )
    _marker().write_text(key)
    print(f"installed {wheel.name} ({key})")


def _marker() -> Path:
    return Path(str(metadata.distribution("horovod").locate_file(f"horovod-{VERSION}.dist-info"))) / MARKER


def _installed_key() -> str:
    try:
        return _marker().read_text()
    except (metadata.PackageNotFoundError, OSError):
        return ""


def _verify() -> int:
    """Run an allreduce of two ranks by each controller, started as a user would; return the exit code."""
    horovodrun = str(toolchain.scripts_folder() / "horovodrun")
    for controller in ("mpi", "gloo"):
        command = [horovodrun, f"--{controller}", "-np", "2", sys.executable, "-c", VERIFY_CODE]
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                env=rank_environment(os.environ),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=VERIFY_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = -1
            if code:
                output.seek(0)
                print(output.read(), file=sys.stderr)
                why = f"exit code {code}" if code > 0 else f"no answer in {VERIFY_LIMIT_S} s"
                print(f"ringtune-launch: horovod: two ranks over {controller} failed: {why}", file=sys.stderr)
                return EXIT_FAILED
        print(f"verified: 2 ranks, allreduce over {controller}")
    return EXIT_FINISHED


def rank_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which ranks can start on one machine, also as root and on one core. **Pure.**

    Without these variables Open MPI 5 and its launcher PRRTE refuse both (their manuals).
    """
    return {
        **base,
        "PATH": toolchain.search_path(base),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
