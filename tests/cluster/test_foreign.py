"""Programs of others under every launcher: scripts of accelerate's wheel, mpi4py's and Horovod's own tests.

docs/launch.md has the table of what passes. mpi4py's tests come from its source package, which is fetched once;
Horovod's are in no package: HOROVOD_TESTS names the folder ``test`` of its sources, or they are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from cluster.hosts import Done
from conftest import rank_environment, script
from ringtune.train.contract import cache_folder

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]
ENV = {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}
ROUTES = [("mpirun", "mpi"), ("mpirun", "gloo"), ("horovodrun", "mpi"), ("horovodrun", "gloo")]
HOSTS = ["-H a:2", "-H a:1,b:1"]
LIMIT_S = 800
#: They make an optimizer of every class that torch has, and torch's Muon, which is younger, takes matrices only.
KNOWN_TO_FAIL = {"test_broadcast_state", "test_broadcast_state_options", "test_force_allreduce"}
#: Without a GPU; and without a test in which a rank that starts its clock a little late measures less than 5 s.
CHOSEN = "not cuda and not gpu and not global_barrier_op"
PASS_OVER = {"mpi": 99, "gloo": 101}  # two are for Gloo alone
#: Horovod's tests import ``mock``, which has long been unittest's.
WITH_MOCK = (
    "import sys, unittest.mock, pytest; sys.modules['mock'] = unittest.mock; sys.exit(pytest.main(sys.argv[1:]))"
)


def run(make_cluster, hosts: str, launcher: str, controller: str, words: list[str], env=ENV) -> Done:
    """Return how a program ends that is launched on host a, or on a and b."""
    launch = [script("ringtune-launch"), "run", *hosts.split(), "--launcher", launcher, "--controller", controller]
    carried = ["-x", "ACCELERATE_USE_CPU"] if "ACCELERATE_USE_CPU" in env else []
    command = [*launch, *carried, "--", *words]
    return make_cluster("a", "b").run("a", command, env=env, limit_s=LIMIT_S)


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize(("launcher", "controller"), [ROUTES[0], ROUTES[3]])
@pytest.mark.parametrize("name", ["test_script", "test_sync", "test_ops"])
def test_scripts_of_accelerate(make_cluster, name, launcher, controller, hosts):
    """Without GPUs accelerate is distributed only where it is told to use the CPU, under torchrun, too."""
    env = {**ENV, "ACCELERATE_USE_CPU": "true"}
    words = ["python", "-m", f"accelerate.test_utils.scripts.{name}"]
    done = run(make_cluster, hosts, launcher, controller, words, env)
    assert done.returncode == 0, done.output[-4000:]


@pytest.fixture(scope="session")
def mpi4py_tests() -> Path:
    """The tests of the mpi4py that is installed."""
    version = metadata.version("mpi4py")
    folder = cache_folder() / "foreign"
    tests = folder / f"mpi4py-{version}" / "test"
    if not tests.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", "mpi4py"]
        subprocess.run([*pip, "-d", str(folder), f"mpi4py=={version}"], check=True, capture_output=True)
        with tarfile.open(folder / f"mpi4py-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return tests


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_mpi4pys_own_tests(make_cluster, mpi4py_tests, launcher, hosts, tmp_path):
    """Starting further processes is left out: it is not the launcher's, and needs free slots.

    Files that all ranks write to lie in a folder that all hosts share.
    """
    words = ["python", str(mpi4py_tests / "main.py"), "-q", "-e", "test_spawn", "-e", "test_dynproc"]
    inside = ["sh", "-c", f'TMPDIR={tmp_path} exec "$@"', "sh", *words]
    done = run(make_cluster, hosts, launcher, "mpi", inside)
    print(*re.findall(r"Ran \d+ tests|OK.*", done.output))
    assert done.returncode == 0 and len(re.findall(r"Ran \d{4} tests", done.output)) == 2, done.output[-4000:]


@pytest.mark.skipif("HOROVOD_TESTS" not in os.environ, reason="HOROVOD_TESTS names no folder with Horovod's tests")
@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize(("launcher", "controller"), ROUTES)
def test_horovods_own_tests_of_torch(make_cluster, launcher, controller, hosts):
    words = ["python", "-c", WITH_MOCK, "-q", "-p", "no:cacheprovider", "-k", CHOSEN, "test_torch.py"]
    inside = ["sh", "-c", f'cd {os.environ["HOROVOD_TESTS"]}/parallel && exec "$@"', "sh", *words]
    done = run(make_cluster, hosts, launcher, controller, inside)
    print(*re.findall(r"\d+ failed.*", done.output))
    failed = set(re.findall(r"FAILED test_torch.py::TorchTests::(\w+)", done.output))
    num_passed = {int(each) for each in re.findall(r"(\d+) passed", done.output)}
    assert failed == KNOWN_TO_FAIL and num_passed == {PASS_OVER[controller]}, done.output[-4000:]
