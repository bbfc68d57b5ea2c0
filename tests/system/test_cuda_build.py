"""A fresh environment with torch's CUDA wheel gets a Horovod with NCCL, on a machine without a GPU.

Where there is no nvcc, nothing of this can be built, and the tests are skipped by name. The environment is 6 GB.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FAULTS, ROOT, Done, Workshop, digests, run_command
from ringtune.launch import cuda

MIN_FREE_BYTES = 20 << 30  # two environments of 6 GB, and their downloads
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3000)]


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with torch's CUDA wheel and ringtune, but without Horovod; return its commands.

    Three equals signs take the wheel whose version is spelt exactly so: ``==`` also takes a CPU build, ``2.13.0+cpu``.
    """
    venv.create(folder, with_pip=True)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]
    (folder / "pins.txt").write_text("\n".join(pins))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(folder / "pins.txt")]
    for words in (["torch===2.13.0"], ["setuptools", "wheel"], ["--no-build-isolation", "-e", f"{ROOT}[horovod]"]):
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr
    return folder / "bin"


def build(commands: Path, cache: Path, *words: str, **env: str) -> Done:
    command = [str(commands / "ringtune-launch"), "horovod", "--cache-dir", str(cache), *words]
    return run_command(command, limit_s=1200, env={"PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin", **env})


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, Path, Done]:
    """Return the commands of an environment in which Horovod was built, its cache, and what the build printed."""
    if cuda.find_toolkit("13") is None:
        pytest.skip("needs nvcc of CUDA 13")
    folder = tmp_path_factory.mktemp("cuda")
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        pytest.skip(f"needs {MIN_FREE_BYTES >> 30} GiB of disk")
    commands = make_environment(folder / "first")
    return commands, folder / "cache", build(commands, folder / "cache", "--cuda-arch", "80,90")


def library(commands: Path) -> Path:
    return next(commands.parent.glob("lib/python*/site-packages/horovod/torch/mpi_lib_v2*.so"))


def test_it_builds_for_two_capabilities_and_says_what_is_not_proved(first):
    _, _, done = first
    assert done.returncode == 0, done.output
    assert "CUDA 13.0 for 80, 90" in done.output
    for words in ("allreduce over mpi", "allreduce over gloo"):
        assert f"verified: 2 ranks, {words}" in done.output
    if not cuda.has_gpu():
        assert re.search(r"not verified: NCCL 2\.\d+\.\d+ is built in, and not proved: no GPU here", done.output)


def test_the_library_finds_each_other_library_once_and_names_no_folder_of_build_or_environment(first):
    commands, _, _ = first
    shown = subprocess.run(["readelf", "-d", library(commands)], capture_output=True, text=True, check=True).stdout
    run_path = re.search(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", shown)
    assert run_path and all(each.startswith("$ORIGIN/") for each in run_path[1].split(":")), shown
    found = subprocess.run(["ldd", library(commands)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in found
    names = [line.split()[0] for line in found.splitlines()]
    for name in ("libnccl.so", "libcudart.so", "libtorch_cuda.so", "libmpi.so"):
        assert sum(each.startswith(name) for each in names) == 1, found
    assert library(commands).stat().st_size < 6 << 20  # no debugging symbols


def test_its_exact_training_step_equals_that_of_the_cpu_build_bitwise(first, workshop: Workshop, reference, tmp_path):
    commands, _, _ = first
    settings = {"mode": "exact", "num_shards": 4, "max_steps": 4, "save_steps": 4}
    words = workshop.arguments(tmp_path / "run", **settings)
    launcher = [str(commands / "mpirun"), "-np", "2", "--bind-to", "none", str(commands / "python")]
    done = run_command(
        [*launcher, str(FAULTS), "--", *words], env={"PATH": f"{commands}:/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.output
    assert digests(tmp_path / "run", 4) == digests(reference(2, **settings), 4)


def test_a_second_environment_without_compilers_takes_the_wheel(first, tmp_path):
    _, cache, _ = first
    commands = make_environment(tmp_path / "second")
    done = build(commands, cache, CXX="none", CUDA_HOME="/nonexistent")
    assert done.returncode == 0, done.output
    assert "building" not in done.output and "was built on another machine" in done.output
    assert "verified: 2 ranks, allreduce over gloo" in done.output and "NCCL 2." in done.output


@pytest.fixture
def without_nvcc(first) -> Callable[..., Done]:
    commands, cache, _ = first
    return lambda *words: build(commands, cache, "--dry-run", *words, CUDA_HOME="/nonexistent", CXX="g++")


def test_a_cuda_torch_can_have_a_horovod_for_cpus(without_nvcc):
    done = without_nvcc("--cpu")
    assert done.returncode == 0 and "to be built (2 to 4 minutes" in done.output, done.output
