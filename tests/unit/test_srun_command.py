"""The command line and the environment by which srun starts ranks as one step of a job."""

from __future__ import annotations

import pytest
from ringtune.launch import mpirun, srun
from ringtune.train.contract import UsageError
from test_launch_plan import PLAN, change


def test_srun_starts_one_step_without_pmi_and_only_inside_a_job():
    command = srun.build(change(launcher="srun", controller="gloo", in_slurm=True))
    assert command.argv[:8] == tuple(
        [
            "srun",
            "--ntasks=3",
            "--nodes=2",
            "--nodelist=a,b",
            "--distribution=block",
            "--mpi=none",
            "--cpu-bind=none",
            "--kill-on-bad-exit=0",
        ]
    )
    with pytest.raises(UsageError, match="not of a SLURM job"):
        srun.build(PLAN)


def test_srun_is_told_the_cpus_of_a_rank_and_the_gpus_of_whole_nodes():
    """Since SLURM 22.05 a step does not get sbatch's --cpus-per-task by itself."""
    in_job = {"launcher": "srun", "controller": "gloo", "in_slurm": True}
    words = srun.build(change(**in_job, cpus_per_rank=8)).argv
    assert "--cpus-per-task=8" in words and "--cpu-bind=cores" in words
    words = srun.build(change(**in_job, cpus_per_rank=8, overcommits=True)).argv
    assert "--overcommit" in words and not any("--cpus-per-task" in each for each in words)
    for build in (srun.build, mpirun.build):
        assert build(change(**in_job, step_gres="gpu:4")).environment["SLURM_GRES"] == "gpu:4"
        assert "SLURM_GRES" not in build(change(**in_job)).environment
