"""The bundle for GPU machines installs, builds and dry-runs on a machine that is cut off from every index.

The machine stands in a network namespace without any network; its Python has torch and what `gpu_bundle.txt` says such
a machine has, and nothing of ringtune.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import ROOT, Done, run_command

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1800)]
HAS = ("transformers", "accelerate", "mpi4py", "pyarrow", "pandas", "scikit-learn", "scipy", "tensorboard", "PyYAML")


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Path:
    """Return the Python of a machine with torch and no GPU."""
    folder = tmp_path_factory.mktemp("machine") / "venv"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    for words in (["torch==2.13.0"], [*HAS, "tqdm", "safetensors", "cmake<4"]):
        subprocess.run([*pip, *words], check=True, timeout=900)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = [sys.executable, str(ROOT / "benchmarks" / "gpu_bundle.py"), str(folder), "--python", version]
    done = run_command(words, limit_s=300)
    assert done.returncode == 0, done.output
    return folder


def run_cut_off(bundle: Path, python: Path, out: Path, *stages: str) -> Done:
    """Run the bundle's script in a network namespace that has nothing but its own loopback."""
    inside = 'ip link set lo up; exec "$@"'
    script = [str(bundle / "gpu.sh"), "--dry-run", str(out), *stages]
    env = {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    return run_command(["unshare", "--net", "sh", "-c", inside, "sh", *script], limit_s=900, env=env)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_the_bundle_installs_builds_and_dry_runs_without_any_index(bundle, machine, tmp_path):
    assert sum(each.stat().st_size for each in bundle.rglob("*") if each.is_file()) < 60 << 20
    out = tmp_path / "out"
    done = run_cut_off(bundle, machine, out)
    assert done.returncode == 0, done.output
    assert "verified: 2 ranks, allreduce over mpi" in done.output and "all done" in done.output
    assert "needs an NVIDIA GPU" in done.output  # the GPU tests were collected, and skipped by name
    results = {each.stem: json.loads(each.read_text()) for each in (out / "results").glob("*.json")}
    for stage in ("install", "build", "test", "measure"):
        assert results[f"stage-{stage}"]["exit_code"] == 0 and results[f"stage-{stage}"]["seconds"] < 540
    for way in ("ringtune", "trainer", "trainer-best"):
        assert results[f"tiny-16-ragged-{way}"]["rows_per_s"] > 0, results
    again = run_cut_off(bundle, machine, out)
    assert again.returncode == 0 and again.output.count("done already") == 4


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_a_stage_that_fails_is_named_with_its_exit_code_and_begun_again(bundle, machine, tmp_path):
    out = tmp_path / "out"
    done = run_cut_off(bundle, machine, out, "build")  # nothing is installed
    assert done.returncode != 0 and "build: failed with exit code" in done.output, done.output
    assert not (out / "build.done").exists()
