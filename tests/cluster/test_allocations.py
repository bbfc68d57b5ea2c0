"""The ranks that an allocation of SLURM gets, however it was asked for, beside what SLURM says of it."""

from __future__ import annotations

import os
import re

import pytest
from conftest import rank_environment, script

pytestmark = pytest.mark.cluster
ENV = rank_environment(os.environ)
LAUNCH = [script("ringtune-launch"), "run"]


def test_a_whole_node_has_a_rank_for_each_gpu_or_one_unless_tasks_are_asked_for(make_slurm):
    """The nodes have four CPUs and two GPUs each. Job and step of SLURM agree with the rank table."""
    slurm = make_slurm("n1", "n2", num_cpus=4)
    asked = {
        "": (2, "a rank for each node"),
        "--exclusive": (4, "a rank for each GPU"),
        "--gres=gpu:2": (4, "a rank for each GPU"),
        "--gpus=4": (4, "a rank for each GPU"),
        "--gpus=3": (3, "a rank for each GPU"),
        "--gpus-per-node=1": (2, "a rank for each GPU"),
        "--exclusive --ntasks-per-node=2": (4, ""),
        "--gpus-per-task=1 --ntasks=2": (2, ""),
    }
    for options, (num_ranks, how) in asked.items():
        step = f"scontrol show step $SLURM_JOB_ID.0 | grep -o 'Tasks=[0-9]*'; {NODES}"
        command = [*LAUNCH, "--no-check", "--launcher", "srun", "--", "sh", "-c", step]
        done = slurm.run(["salloc", "-Q", "-N2", *options.split(), *command], env=ENV)
        assert done.returncode == 0, f"{options}: {done.output}"
        assert f"{num_ranks} rank(s) by srun" in done.output and how in done.output, f"{options}: {done.output}"
        assert done.output.count(f"Tasks={num_ranks}") == num_ranks, f"{options}: {done.output}"
        table = re.findall(r"^ +(\d+)  (n\d) ", done.output, flags=re.MULTILINE)
        ran = re.findall(r"^\[(\d+)\] on (n\d)$", done.output, flags=re.MULTILINE)
        assert sorted(table) == sorted(ran) and len(table) == num_ranks, f"{options}: {done.output}"


NODES = "echo on $SLURMD_NODENAME"


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_ranks_see_the_gpus_that_came_with_whole_nodes(make_slurm, launcher):
    """SLURM shows a step those that the job asked for, and of others only those that the step asks for."""
    command = [*LAUNCH, "--no-check", "--launcher", launcher, "--", "sh", "-c", "echo sees $CUDA_VISIBLE_DEVICES"]
    done = make_slurm("n1", "n2").run(["salloc", "-Q", "-N2", "--exclusive", *command], env=ENV)
    assert done.returncode == 0 and done.output.count("sees 0,1\n") == 4, done.output


def test_mpirun_starts_the_ranks_that_are_counted_by_gpus_on_as_few_cpus_as_there_are(make_slurm):
    slurm = make_slurm("n1", "n2")
    env = {name: value for name, value in ENV.items() if "rmaps" not in name}  # with which any number would fit
    command = [*LAUNCH, "--no-check", "--launcher", "mpirun"]
    for options, num_ranks in (([], 4), (["-np", "6"], 6)):
        done = slurm.run(["salloc", "-Q", "-N2", "--gpus-per-node=2", *command, *options, "--", "hostname"], env=env)
        assert done.returncode == 0 and f"{num_ranks} rank(s) by mpirun" in done.output, done.output
        assert len(re.findall(r"^\[\d\] n[12]$", done.output, flags=re.MULTILINE)) == num_ranks, done.output


def test_ranks_have_the_cpus_of_their_tasks_where_slurm_binds_them(make_slurm):
    slurm = make_slurm("n1", task_plugin="task/affinity")
    code = "import os; print('CPUs', sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    for launcher in ("mpirun", "srun"):
        command = [*LAUNCH, "--no-check", "--launcher", launcher, "--", "python", "-c", code]
        done = slurm.run(["salloc", "-Q", "--ntasks=2", "--cpus-per-task=1", *command], env=ENV)
        found = sorted(re.findall(r"CPUs \[(.*)\] (\d)", done.output))
        assert f"2 rank(s) by {launcher}" in done.output, done.output
        assert ("1 CPU(s) each" in done.output) == (launcher == "srun"), done.output
        assert len(set(found)) == 2 and all("," not in cpus and threads == "1" for cpus, threads in found), done.output
    done = slurm.run(["salloc", "-Q", "--ntasks=1", "--cpus-per-task=2", *command], env=ENV)
    assert "1 rank(s) by srun over gloo, 2 CPU(s) each" in done.output, done.output
    assert re.search(r"CPUs \[\d+, \d+\]", done.output), done.output


def test_a_heterogeneous_job_is_refused_by_name(make_slurm):
    slurm = make_slurm("n1", "n2")
    done = slurm.run(["salloc", "-Q", "-n1", ":", "-n1", *LAUNCH, "--", "true"], env=ENV)
    assert done.returncode == 2 and "it is heterogeneous, of 2 components" in done.output, done.output


def test_a_job_that_is_submitted_from_a_job_asks_for_its_own_memory(desk):
    """sbatch would hand the outer job's memory on to the new one, whose srun is refused for asking in two ways."""
    mine = desk("n1", "n2")
    flags = mine.here.arguments(mine.folder / "run", max_steps=2)
    submit = [script("ringtune-slurm"), "submit", "--ntasks=1", "--mem-per-cpu=500", "--no-doctor", "--", *flags]
    done = mine.sh("salloc", "-Q", "-N1", "--mem=1000", *submit)
    assert done.returncode == 0, done.output
    assert mine.finish()["state"] == "COMPLETED", mine.log()
