"""Building Horovod: what is decided, what is corrected, and what is missed before anything starts."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import subprocess
import sys
import zipfile
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


def test_a_correction_changes_its_string_and_renews_the_record(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("p/m.py", "x = 'old'\n")
        wheel.writestr("p-1.dist-info/RECORD", "p/m.py,sha256=none,1\n")
    table = (corrections.Correction("p/m.py", "'old'", "'new'", "why"),)
    corrections.apply(tmp_path / "a.whl", tmp_path / "b.whl", table)
    with zipfile.ZipFile(tmp_path / "b.whl") as wheel:
        content = wheel.read("p/m.py")
        rows = {row[0]: row[1:] for row in csv.reader(wheel.read("p-1.dist-info/RECORD").decode().splitlines())}
    assert content == b"x = 'new'\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    assert rows["p/m.py"] == [f"sha256={digest}", str(len(content))]
    with pytest.raises(ValueError, match=r"m.py has no 'absent'"):
        corrections.apply(tmp_path / "a.whl", tmp_path / "c.whl", (corrections.Correction("p/m.py", "absent", "", ""),))


def test_everything_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "scripts_folder", lambda: tmp_path)
    monkeypatch.setattr(toolchain, "FREE_BYTES_NEEDED", 1 << 60)
    with pytest.raises(UsageError) as caught:
        toolchain.find(tmp_path / "cache")
    for name in ("C++ compiler", "cmake", "make", "MPI", "disk space"):
        assert name in str(caught.value)


def test_a_dry_run_shows_the_plan_and_installs_nothing(tmp_path):
    command = [sys.executable, "-m", "ringtune.launch.cli", "horovod", "--dry-run", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "to be built" in done.stdout and "correction" in done.stdout
    assert not list((tmp_path / "horovod").iterdir())
