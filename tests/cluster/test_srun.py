"""Launching inside a real SLURM: srun with and without an MPI plugin, mpirun, and srun's two silent traps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster.test_run import same_result, settled
from conftest import rank_environment, ranks, script, short_demo
from ringtune.launch import run

pytestmark = pytest.mark.cluster
PROGRAMS = Path(__file__).parent / "programs"
ENV = rank_environment(os.environ)


def launch(*words: object, program: str = "horovod_sum.py", more: tuple[str, ...] = ()) -> list[str]:
    return [script("ringtune-launch"), "run", *map(str, words), "--", "python", str(PROGRAMS / program), *more]


@pytest.mark.parametrize("words", [("--launcher", "srun"), ("--launcher", "srun", "--controller", "mpi"), ()], ids=str)
def test_a_ragged_allocation_gives_its_ranks_by_srun_alone_by_pmix_and_by_mpirun(make_slurm, words):
    slurm = make_slurm("n1", "n2")
    done = slurm.run(["salloc", "-N2", "-n3", *launch(*words)], env=ENV)
    assert done.returncode == 0, done.output
    assert "hosts from SLURM job" in done.output
    for rank, local in enumerate(("0 of 2", "1 of 2", "0 of 1")):
        assert f"[{rank}] sum [6.0, 6.0, 6.0] rank {rank} of 3, local rank {local}" in done.output, done.output


def test_an_mpi_plugin_that_starts_lone_ranks_is_an_error_of_launcher_and_worker(make_slurm, tmp_path):
    slurm = make_slurm("n1")
    done = slurm.run(
        ["salloc", "-n2", *launch("--launcher", "srun", "--controller", "mpi", "--srun-mpi", "pmi2")], env=ENV
    )
    assert done.returncode == 2
    assert "has the ranks: rank 0 of 1, local rank 0 of 1; rank 0 of 1" in done.output, done.output
    done = slurm.run(["srun", "--mpi=pmi2", "-n2", *short_demo(tmp_path / "run"), "--dry_run"], env=ENV)
    assert done.returncode == 2 and "the launcher promised 2 ranks but Horovod found 1" in done.output, done.output


def test_a_pmix_that_gives_every_rank_local_rank_0_is_an_error_of_launcher_and_worker(make_slurm, tmp_path):
    """It does so where SLURM knows a node by another name than the node itself."""
    slurm = make_slurm("odd", hosts={"odd": "n1"})
    done = slurm.run(["salloc", "-n2", *launch("--launcher", "srun", "--controller", "mpi")], env=ENV)
    assert done.returncode == 2
    assert "rank 0 of 2, local rank 0 of 1; rank 1 of 2, local rank 0 of 1" in done.output, done.output
    done = slurm.run(["srun", "--mpi=pmix", "-n2", *short_demo(tmp_path / "run"), "--dry_run"], env=ENV)
    assert done.returncode == 2 and "2 ranks of host n1 have local rank 0" in done.output, done.output
    assert "rank 1  host n1  local_rank 0 of 1" in done.output  # the table
    done = slurm.run(["salloc", "-n2", *launch("--launcher", "srun")], env=ENV)
    assert done.returncode == 0 and "local rank 1 of 2" in done.output, done.output  # without PMIx all is well


@pytest.mark.long
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_the_demo_fine_tune_has_the_same_result_under_srun_and_without_slurm(make_slurm, tmp_path, mode):
    slurm = make_slurm("n1", "n2")
    folders = {name: tmp_path / name for name in ("gloo", "mpi", "alone")}
    for controller in ("gloo", "mpi"):
        words = [script("ringtune-launch"), "run", "--launcher", "srun", "--controller", controller, "--"]
        command = ["salloc", "-N2", "-n2", *words, *short_demo(folders[controller], mode)]
        done = slurm.run(command, env=ENV, limit_s=240)
        assert done.returncode == 0, done.output
    done = ranks(1, "-m", "ringtune.train.cli", *short_demo(folders["alone"], mode)[1:])
    assert done.returncode == 0, done.output
    same_result(folders, mode)


@pytest.mark.long
def test_no_rank_dies_while_mpi_starts_on_busy_nodes(make_slurm):
    """With SLURM's own choice of fence, 4 to 6 starts of 400 died so, on two cores with three other processes."""
    fence = run._library_settings("srun", "mpi", None, {})["SLURM_PMIX_FENCE"]
    speak = "from mpi4py import MPI; assert MPI.COMM_WORLD.Dup().allreduce(1) == 2"
    start = f"srun --mpi=pmix -N2 -n2 --cpu-bind=none python -c '{speak}'"
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        slurm = make_slurm("n1", "n2")
        starts = f"for i in $(seq 400); do {start} || exit 3; done"
        done = slurm.run(
            ["salloc", "-N2", "-n2", "bash", "-c", starts], env={**ENV, "SLURM_PMIX_FENCE": fence}, limit_s=900
        )
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert done.returncode == 0, done.output[-5000:]


def test_a_killed_rank_ends_the_step_and_leaves_nothing_on_the_nodes(make_slurm):
    slurm = make_slurm("n1", "n2")
    command = launch("--launcher", "srun", program="fault.py", more=("kill",))
    done = slurm.run(["salloc", "-N2", "-n3", *command], env=ENV)
    assert "rank 2 of 3 (host n2): killed by SIGKILL" in done.output and done.returncode == 137, done.output

    def ours() -> list[str]:
        return [line for line in slurm.cluster.command_lines() if "fault.py" in line]

    assert settled(lambda: not ours()), ours()


def test_a_node_without_the_environment_is_named_before_anything_starts(make_slurm):
    slurm = make_slurm("n1", "n2")
    done = slurm.cluster.run("n2", ["mount", "-t", "tmpfs", "tmpfs", str(Path(script("python3")).parent)])
    assert done.returncode == 0
    done = slurm.run(["salloc", "-N2", "-n2", *launch("--launcher", "srun")], env=ENV)
    assert done.returncode == 2 and "n2: it has no Python at the path used here" in done.output, done.output
