"""The command line of Open MPI's ``mpirun`` (mpirun(1) of Open MPI 4 and 5)."""

from __future__ import annotations

import shlex

from ringtune.launch.plan import Command, LaunchPlan
from ringtune.train.contract import CONTROL_VARIABLE

#: Open MPI 5 reads PRTE_MCA_* for its launcher PRRTE, Open MPI 4 OMPI_MCA_*; each ignores the other's.
_SSH_ARGUMENTS = ("PRTE_MCA_plm_ssh_args", "OMPI_MCA_plm_rsh_args")
_ROOT = (
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
    "PRTE_ALLOW_RUN_AS_ROOT",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
)


def build(plan: LaunchPlan) -> Command:
    """Return the command that starts the plan's ranks. **Pure.**"""
    argv = ["mpirun", "-np", str(plan.num_proc), "-H", plan.host_list, "--map-by", _mapping(plan), "--bind-to", "none"]
    if plan.mpi_prefix and not plan.is_local:
        argv += ["--prefix", plan.mpi_prefix]
    for name, value in mca_settings(plan).items():
        argv += ["--mca", name, value]
    for name in sorted({*plan.environment, CONTROL_VARIABLE}):
        argv += ["-x", name]
    return Command((*argv, *plan.command), launcher_environment(plan))


def _mapping(plan: LaunchPlan) -> str:
    """Return how ranks are put on hosts: in order. SLURM may have counted fewer tasks than there are ranks."""
    return "slot:OVERSUBSCRIBE" if plan.overcommits else "slot"


def mca_settings(plan: LaunchPlan) -> dict[str, str]:
    """Return Open MPI's parameters for ring-allreduce of large messages and for the interface. **Pure.**"""
    settings: dict[str, str] = {}
    if plan.ring_rules:
        settings |= {"coll_tuned_use_dynamic_rules": "1", "coll_tuned_dynamic_rules_filename": plan.ring_rules}
    if plan.interface:
        settings |= {"btl_tcp_if_include": plan.interface}
    return settings


def launcher_environment(plan: LaunchPlan) -> dict[str, str]:
    """Return the variables that mpirun itself reads. **Pure.**"""
    result = plan.step_environment
    if plan.ssh.options():
        result |= dict.fromkeys(_SSH_ARGUMENTS, shlex.join(plan.ssh.options()))
    if plan.interface:
        result |= {"PRTE_MCA_prte_if_include": plan.interface, "OMPI_MCA_oob_tcp_if_include": plan.interface}
    if plan.as_root:
        result |= dict.fromkeys(_ROOT, "1")
    return result
