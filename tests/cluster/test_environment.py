"""Which of a user's variables the ranks on other hosts get, and what is said of the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import rank_environment, script

pytestmark = pytest.mark.cluster
ENV = rank_environment(os.environ)
LAUNCH = [script("ringtune-launch"), "run"]


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_the_gpus_that_one_host_may_use_are_not_forced_on_another(make_cluster, launcher):
    code = "import os; print('GPUs', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    start = [script("ringtune-launch"), "run", "-H", "a:1,b:1", "--launcher", launcher]
    cluster, env = make_cluster("a", "b"), {**ENV, "CUDA_VISIBLE_DEVICES": "1"}
    done = cluster.run("a", [*start, "--", "python", "-c", code], env=env)
    assert "[0] GPUs 1\n" in done.output and "[1] GPUs None" in done.output, done.output
    assert "CUDA_VISIBLE_DEVICES=1 stays on this machine; -x CUDA_VISIBLE_DEVICES carries it" in done.output
    done = cluster.run("a", [*start, "-x", "CUDA_VISIBLE_DEVICES", "--", "python", "-c", code], env=env)
    assert "[0] GPUs 1\n" in done.output and "[1] GPUs 1\n" in done.output, done.output
    assert "stays on this machine" not in done.output


def test_gloo_and_nccl_take_the_network_that_joins_the_hosts(make_cluster):
    code = "import os; print('networks', os.environ.get('HOROVOD_GLOO_IFACE'), os.environ.get('NCCL_SOCKET_IFNAME'))"
    cluster, program = make_cluster("a", "b"), ["--", "python", "-c", code]
    start = [script("ringtune-launch"), "run", "-H", "a:1,b:1"]
    done = cluster.run("a", [*start, *program], env=ENV)
    assert "[0] networks eth0 =eth0\n" in done.output and "[1] networks eth0 =eth0\n" in done.output, done.output
    done = cluster.run("a", [*start, "-x", "NCCL_SOCKET_IFNAME=ib", *program], env=ENV)
    assert "[1] networks eth0 ib\n" in done.output, done.output


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_what_other_hosts_do_not_get_of_the_environment_is_named_and_carried_on_request(make_cluster, launcher):
    code = "import os; print('has', sorted({'https_proxy', 'WANDB_MODE', 'WANDB_DIR'} & set(os.environ)))"
    start = [script("ringtune-launch"), "run", "-H", "a:1,b:1", "--launcher", launcher]
    own = {name: ENV[name] for name in ENV if name.startswith(("PATH", "HOME", "OMPI_", "PRTE_"))}
    cluster, env = make_cluster("a", "b"), {**own, "https_proxy": "p", "WANDB_MODE": "k", "WANDB_DIR": "d"}
    done = cluster.run("a", [*start, "--", "python", "-c", code], env=env)
    assert "[0] has ['WANDB_DIR', 'WANDB_MODE', 'https_proxy']" in done.output and "[1] has []" in done.output
    assert "not carried to other hosts: WANDB_DIR, WANDB_MODE, https_proxy; -x NAME or --carry" in done.output
    done = cluster.run("a", [*start, "--carry", "WANBD_*", "--", "true"], env=env)
    assert "--carry WANBD_*: nothing that is set here matches" in done.output, done.output
    done = cluster.run("a", [*start, "--carry", "WANDB_*", "-x", "https_proxy", "--", "python", "-c", code], env=env)
    assert done.output.count("has ['WANDB_DIR', 'WANDB_MODE', 'https_proxy']") == 2, done.output
    assert "not carried" not in done.output


@pytest.mark.parametrize(
    "launch",
    [
        ["horovodrun", "--gloo", "-np", "2"],
        [script("ringtune-launch"), "run", "-np", "2", "--controller", "gloo", "--"],
    ],
    ids=["horovodrun", "ringtune-launch"],
)
def test_a_host_that_does_not_know_its_own_name_runs_gloo(launch):
    """Horovod as released looks for the network by that name, and every rank dies of SIGSEGV."""
    program = ["python", str(Path(__file__).parent / "programs" / "horovod_sum.py")]
    words = ["unshare", "--uts", "sh", "-c", 'hostname no-such-name && exec "$@"', "sh", *launch, *program]
    done = subprocess.run(words, env=ENV, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout.count("sum [3.0, 3.0, 3.0] rank ") == 2, done.stdout + done.stderr
