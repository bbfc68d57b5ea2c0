"""Probe all hosts at the same time before a job starts, and report on each what would make the job fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ringtune.launch import commands, control, environment, probe, srun
from ringtune.launch.plan import LaunchPlan, Ssh
from ringtune.train.contract import UsageError

TEMPORARY_TODO = "set TMPDIR to a folder that is there and that one may write to"
#: By these of a job's, a step of one task a node would get one task's GPUs, or be refused for asking twice.
TASK_GPUS = (
    "SLURM_GPUS_PER_TASK",
    "SLURM_NTASKS_PER_GPU",
    "SLURM_NTASKS_PER_TRES",
    "SLURM_GPU_BIND",
    "SLURM_TRES_PER_TASK",
    "SLURM_TRES_BIND",
)
CONNECT_S = 8
PROBE_LIMIT_S = 40
_PLACEMENT = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")
_REASONS = (
    (
        "Permission denied",
        "ssh refuses the key",
        "add the key to the host's authorized_keys, or name it with --ssh-identity-file",
    ),
    (
        "Host key verification failed",
        "its ssh host key is not the known one",
        "connect once by hand, or fix known_hosts",
    ),
    ("Could not resolve hostname", "the name is not known", "check the spelling"),
    ("Connection refused", "nothing listens on its ssh port", "start sshd there, or name the port with --ssh-port"),
    ("timed out", "it does not answer", "check that it is up, and the network"),
    ("No route to host", "it cannot be reached", "check that it is up, and the network"),
    (
        "No such file or directory",
        "it has no Python at the path used here",
        "install the same environment at the same path on every host",
    ),
    (
        "not found",
        "it has no Python at the path used here",
        "install the same environment at the same path on every host",
    ),
    (
        "No module named",
        "ringtune is not installed there",
        "install the same environment at the same path on every host",
    ),
)


@dataclass(frozen=True)
class Report:
    """The outcome of probing one host: its facts, or why there are none."""

    host: str
    facts: Mapping[str, Any] | None  # as of probe.facts
    error: str = ""
    todo: str = ""
    asked_at: float = 0.0  # when the probe was started, by this machine's clock, seconds
    answered_at: float = 0.0  # when its answer came, by the same clock


def check(plan: LaunchPlan) -> list[Report]:
    """Return a report on every host. Raises a UsageError that names those on which ranks cannot start, and why."""
    program = plan.command[plan.command.index("--") + 1]
    reports = probe_hosts(plan, [], program=program)
    problems = [f"{report.host}: {report.error} ({report.todo})" for report in reports if report.facts is None]
    own = probe.software()
    for report in reports:
        if report.facts is not None:
            problems += [f"{report.host}: {each}" for each in differences(own, report.facts)]
            if plan.uses_mpi and report.facts["temporary"]:
                problems.append(f"{report.host}: {report.facts['temporary']} ({TEMPORARY_TODO})")
            if report.facts["program"] is False:
                problems.append(f"{report.host}: there is no program {program!r} on the PATH")
    if problems:
        raise UsageError(
            "hosts",
            "; ".join(problems),
            legal="reachable hosts with one environment",
            todo="fix them, or leave them out; --no-check starts anyway",
        )
    return reports


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return how a host's software differs from this one's, a phrase each. **Pure.**"""
    found = []
    if own["python"] != other["python"]:
        found.append(f"Python {other['python']}, here {own['python']}")
    for name, version in own["versions"].items():
        if other["versions"].get(name, "") != version:
            found.append(f"{name} {other['versions'].get(name) or 'missing'}, here {version or 'missing'}")
    return found


def probe_hosts(
    plan: LaunchPlan, folders: Sequence[str], *, token: str = "", program: str = "", hub: bool = False
) -> list[Report]:
    """Return a report on every host of the plan, in its order; hosts are probed at the same time.

    folders, token, program, hub: as for probe.facts.
    """
    arguments = [argument for folder in folders for argument in ("--folder", folder)]
    arguments += ["--token", token] if token else []
    arguments += ["--program", program] if program else []
    arguments += ["--hub"] if hub else []
    names = [host.name for host in plan.hosts]
    if plan.in_slurm:
        return _probe_by_srun(plan, arguments)
    others = [name for name in names if not control.is_this_machine(name)]
    towards = others[0] if others else ""
    with ThreadPoolExecutor(max_workers=min(32, len(names))) as pool:
        return list(pool.map(lambda name: _probe_host(name, arguments, plan.ssh, plan.environment, towards), names))


def _probe_host(host: str, arguments: Sequence[str], ssh: Ssh, carried: Mapping[str, str], towards: str) -> Report:
    asked_at = time.time()
    command = [*commands.module("ringtune.launch.probe"), *arguments]
    if control.is_this_machine(host):
        command = ["env", f"PATH={carried['PATH']}", *command, *(["--towards", towards] if towards else [])]
    else:
        remote = shlex.join(["env", f"PATH={carried['PATH']}", *command])
        command = [
            "ssh",
            *ssh.options(),
            "-o",
            "BatchMode=yes",
            "-o",
            f"ConnectTimeout={CONNECT_S}",
            "--",
            host,
            remote,
        ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_LIMIT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return Report(host, None, f"no answer in {PROBE_LIMIT_S} s", "check that it is up, and the network")
    return _report(host, done, asked_at)


def _report(host: str, done: subprocess.CompletedProcess[str], asked_at: float) -> Report:
    if done.returncode == 0:
        try:
            return Report(host, json.loads(done.stdout.splitlines()[-1]), asked_at=asked_at, answered_at=time.time())
        except (ValueError, IndexError):
            return Report(host, None, f"it answers {done.stdout[:80]!r}", "make its shell print nothing at log-in")
    error, todo = explain(done.stderr)
    return Report(host, None, error, todo)


def explain(stderr: str) -> tuple[str, str]:
    """Return the meaning of ssh's error output and what to do about it. **Pure.**"""
    for sign, error, todo in _REASONS:
        if sign in stderr:
            return error, todo
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "no answer")
    return last.strip()[:200], "try: ssh HOST true"


def _probe_by_srun(plan: LaunchPlan, arguments: Sequence[str]) -> list[Report]:
    """Probe the nodes of a SLURM job by srun: ssh to nodes is often forbidden."""
    names = [host.name for host in plan.hosts]
    command = [
        "srun",
        f"--ntasks={len(names)}",
        f"--nodes={len(names)}",
        f"--nodelist={','.join(names)}",
        "--mpi=none",
        "--ntasks-per-node=1",
        "--overlap",
        "--export=ALL",
        *commands.module("ringtune.launch.probe"),
        "--by-line",
        *arguments,
    ]
    asked_at = time.time()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**_without(TASK_GPUS), "PATH": plan.environment["PATH"], **plan.step_environment},
        )
        output, (error, todo) = done.stdout, explain(done.stderr)
    except subprocess.TimeoutExpired as late:  # a node that hangs; the others have answered
        output = (late.stdout or b"").decode(errors="replace")
        error, todo = f"no answer in {PROBE_LIMIT_S} s", "leave it out"
    found = probe.from_lines(output)
    return [Report(name, found.get(name), error, todo, asked_at, time.time()) for name in names]


def _without(names: Sequence[str]) -> dict[str, str]:
    """Return this environment without some variables."""
    return {name: value for name, value in os.environ.items() if name not in names}


def check_mpi(plan: LaunchPlan) -> None:
    """Start a small MPI program under srun and compare its ranks with the plan's. Raises UsageError if they differ.

    Two failures are silent otherwise: an MPI plugin of srun that does not match MPI gives N jobs of size 1, and
    incompatible PMIx versions give every rank local rank 0.
    """
    trial = LaunchPlan(**{**vars(plan), "command": tuple(commands.module("ringtune.launch.mpi_check"))})
    try:
        done = subprocess.run(
            srun.build(trial).argv,
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S * 2,
            check=False,
            env={**environment.for_launcher(os.environ), **plan.environment, **plan.step_environment},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            "--launcher srun --controller mpi",
            f"a small MPI program did not end in {PROBE_LIMIT_S * 2} s",
            legal="an MPI that starts under srun",
            todo="use --controller gloo, or --launcher mpirun",
        ) from None
    found = sorted(
        [int(number) for number in numbers] for numbers in _PLACEMENT.findall(done.stdout)
    )  # srun may join lines
    expected = [[slot.rank, slot.size, slot.local_rank, slot.local_size] for slot in plan.slots]
    if found != expected:
        ranks = "; ".join(
            f"rank {rank} of {size}, local rank {local_rank} of {local_size}"
            for rank, size, local_rank, local_size in found
        )
        wrong = f"MPI started by srun --mpi={plan.srun_mpi} has the ranks: {ranks or 'none'}"
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        raise UsageError(
            "--launcher srun --controller mpi",
            wrong + (f" ({last.strip()[:160]})" if not found else ""),
            legal=f"{plan.num_proc} ranks of one job, each with a local rank of its own",
            todo="use --controller gloo, or --launcher mpirun, or another --srun-mpi",
        )
