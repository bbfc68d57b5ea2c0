"""Building Horovod: what is decided, what is corrected, and what is missed before anything starts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from ringtune.launch import corrections, horovod, toolchain
from ringtune.train.contract import UsageError

TOOLS = toolchain.Toolchain("CPython-3.11", "2.13.0+cpu", "", 20, "/usr/bin/g++", "12", "3.31", "5.0.11", "/v", "", "")


def test_the_key_changes_with_every_part_and_with_the_recipe():
    others = [dataclasses.replace(TOOLS, **{each.name: "x"}) for each in dataclasses.fields(TOOLS)]
    keys = {each.key("recipe") for each in [TOOLS, *others]} | {TOOLS.key("another recipe")}
    assert len(keys) == len(others) + 2
    assert TOOLS.key("recipe") == TOOLS.key("recipe")


def test_cuda_is_built_for_where_torch_has_it():
    tools = dataclasses.replace(
        TOOLS, torch_cuda="13.0", nvcc="/usr/local/cuda/bin/nvcc", nccl_home="/site/nvidia/nccl"
    )
    found = horovod.environment(tools, Path("/w"), 2, {})
    assert (found["HOROVOD_GPU_OPERATIONS"], found["HOROVOD_CUDA_HOME"]) == ("NCCL", "/usr/local/cuda")
    assert found["HOROVOD_NCCL_HOME"] == "/site/nvidia/nccl"
    assert "HOROVOD_GPU_OPERATIONS" not in horovod.environment(TOOLS, Path("/w"), 2, {})


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


def test_everything_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "scripts_folder", lambda: tmp_path)
    monkeypatch.setattr(toolchain, "FREE_BYTES_NEEDED", 1 << 60)
    with pytest.raises(UsageError) as caught:
        toolchain.find(tmp_path / "cache")
    for name in ("C++ compiler", "cmake", "make", "MPI", "disk space"):
        assert name in str(caught.value)


def test_a_compiler_that_is_named_is_never_replaced_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"missing: the C\+\+ compiler CXX=no-such-compiler"):
        toolchain.find(tmp_path)


def test_a_cache_that_is_no_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/horovod: Not a directory.*--cache-dir"):
        toolchain.find(tmp_path / "file" / "horovod")


def test_a_dry_run_shows_the_plan_and_installs_nothing(tmp_path):
    command = [sys.executable, "-m", "ringtune.launch.cli", "horovod", "--dry-run", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "to be built" in done.stdout and "correction" in done.stdout
    assert not list((tmp_path / "horovod").iterdir())
