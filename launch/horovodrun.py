"""The command line of Horovod's own launcher ``horovodrun`` (0.28)."""

from __future__ import annotations

from ringtune.launch import mpirun
from ringtune.launch.plan import Command, LaunchPlan
from ringtune.train.contract import UsageError


def build(plan: LaunchPlan) -> Command:
    """Return the command that starts the plan's ranks. **Pure.** Raises UsageError for what horovodrun cannot do."""
    for host in plan.hosts:
        if ":" in host.name:
            raise UsageError(
                "--launcher horovodrun",
                f"it takes no IPv6 address such as {host.name}",
                legal="host names",
                todo="use --launcher mpirun, or a name",
            )
    if plan.ssh.config_file:
        raise UsageError(
            "--ssh-config",
            "horovodrun cannot pass it to ssh",
            legal="--ssh-port and --ssh-identity-file",
            todo="use --launcher mpirun, or ~/.ssh/config",
        )
    argv = ["horovodrun", f"--{plan.controller}", "-np", str(plan.num_proc), "-H", plan.host_list]
    if plan.ssh.port:
        argv += ["-p", str(plan.ssh.port)]
    if plan.ssh.identity_file:
        argv += ["-i", plan.ssh.identity_file]
    if plan.interface:
        argv += ["--network-interfaces", plan.interface]
    if plan.controller == "mpi":
        extra = [f"--mca {name} {value}" for name, value in mpirun.mca_settings(plan).items()]
        if plan.mpi_prefix and not plan.is_local:
            extra.append(f"--prefix {plan.mpi_prefix}")
        if extra:
            argv.append(f"--mpi-args={' '.join(extra)}")
    return Command((*argv, *plan.command), mpirun.launcher_environment(plan))
