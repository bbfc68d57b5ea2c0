"""The command line of SLURM's ``srun`` inside an allocation (srun(1))."""

from __future__ import annotations

from ringtune.launch.plan import Command, LaunchPlan
from ringtune.train.contract import UsageError


def build(plan: LaunchPlan) -> Command:
    """Return the command that starts the plan's ranks as one job step. **Pure.**

    Raises UsageError outside a SLURM job.
    """
    if not plan.in_slurm:
        raise UsageError(
            "--launcher srun",
            f"the hosts are those of {plan.source}, not of a SLURM job",
            legal="a SLURM allocation without -H or --hostfile",
            todo="use salloc or sbatch, or another launcher",
        )
    names = ",".join(host.name for host in plan.hosts)
    argv = [
        "srun",
        f"--ntasks={plan.num_proc}",
        f"--nodes={len(plan.hosts)}",
        f"--nodelist={names}",
        "--distribution=block",
        f"--mpi={plan.srun_mpi}",
        *_cpus(plan),
        "--kill-on-bad-exit=0",
        "--unbuffered",
        "--export=ALL",
    ]
    return Command((*argv, *plan.srun_options, *plan.command), plan.step_environment)


def _cpus(plan: LaunchPlan) -> list[str]:
    """Return the options by which ranks get the CPUs of their tasks: srun does not inherit sbatch's since SLURM 22.05.

    Otherwise the ranks of a node share its cores, as under the other launchers.
    """
    if plan.overcommits:
        return ["--cpu-bind=none", "--overcommit"]
    if plan.cpus_per_rank is None:
        return ["--cpu-bind=none"]
    return [f"--cpus-per-task={plan.cpus_per_rank}", "--cpu-bind=cores"]
