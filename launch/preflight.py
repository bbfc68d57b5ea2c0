"""Look at every host before a job starts, all at once, and say of each what would make the job fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ringtune.launch import control, environment, probe, srun
from ringtune.launch.plan import Plan, Ssh
from ringtune.train.contract import UsageError

CONNECT_S = 8
PROBE_LIMIT_S = 40
_SEAT = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")
_REASONS = (
    (
        "Permission denied",
        "ssh refuses the key",
        "add the key to the host's authorized_keys, or name it with --ssh-identity-file",
    ),
    (
        "Host key verification failed",
        "its ssh host key is not the known one",
        "connect once by hand, or mend known_hosts",
    ),
    ("Could not resolve hostname", "the name is not known", "check the spelling"),
    ("Connection refused", "nothing listens on its ssh port", "start sshd there, or name the port with --ssh-port"),
    ("timed out", "it does not answer", "is it up, and the network?"),
    ("No route to host", "it cannot be reached", "is it up, and the network?"),
    (
        "No such file or directory",
        "it has no Python at the path used here",
        "the same environment at the same path on every host",
    ),
    ("not found", "it has no Python at the path used here", "the same environment at the same path on every host"),
    ("No module named", "ringtune is not installed there", "the same environment at the same path on every host"),
)


@dataclass(frozen=True)
class Report:
    """What a look at one host brought: its facts, or why there are none."""

    host: str
    facts: Mapping[str, Any] | None
    error: str = ""
    todo: str = ""
    asked_at: float = 0.0  # this machine's clock when it was asked ...
    answered_at: float = 0.0  # ... and when the answer came


def check(plan: Plan) -> None:
    """Raise UsageError that names every host on which the plan's ranks could not start, and why."""
    program = plan.command[plan.command.index("--") + 1]
    reports = look_at(plan, [], program=program)
    complaints = [f"{report.host}: {report.error} ({report.todo})" for report in reports if report.facts is None]
    own = probe.facts([])
    for report in reports:
        if report.facts is not None:
            complaints += [f"{report.host}: {each}" for each in differences(own, report.facts)]
            if report.facts["program"] is False:
                complaints.append(f"{report.host}: there is no program {program!r} on the PATH")
    if complaints:
        raise UsageError(
            "hosts",
            "; ".join(complaints),
            legal="reachable hosts with one environment",
            todo="mend them, or leave them out; --no-check starts anyway",
        )


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return how a host's software differs from this one's, a phrase each. **Pure.**"""
    found = []
    if own["python"] != other["python"]:
        found.append(f"Python {other['python']}, here {own['python']}")
    for name, version in own["versions"].items():
        if other["versions"].get(name, "") != version:
            found.append(f"{name} {other['versions'].get(name) or 'missing'}, here {version or 'missing'}")
    return found


def look_at(plan: Plan, folders: Sequence[str], *, token: str = "", program: str = "") -> list[Report]:
    """Return a report of every host of the plan, in its order; hosts are asked at the same time."""
    words = [word for folder in folders for word in ("--folder", folder)]
    words += ["--token", token] if token else []
    words += ["--program", program] if program else []
    names = [host.name for host in plan.hosts]
    if plan.in_slurm:
        return _by_srun(plan, words)
    others = [name for name in names if not control.is_this_machine(name)]
    towards = others[0] if others else ""
    with ThreadPoolExecutor(max_workers=min(32, len(names))) as pool:
        return list(pool.map(lambda name: _ask(name, words, plan.ssh, plan.environment, towards), names))


def _ask(host: str, words: Sequence[str], ssh: Ssh, carried: Mapping[str, str], towards: str) -> Report:
    asked_at = time.time()
    command = [sys.executable, "-m", "ringtune.launch.probe", *words]
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
        return Report(host, None, f"no answer in {PROBE_LIMIT_S} s", "is it up, and the network?")
    return _report(host, done, asked_at)


def _report(host: str, done: subprocess.CompletedProcess[str], asked_at: float) -> Report:
    if done.returncode == 0:
        try:
            return Report(host, json.loads(done.stdout.splitlines()[-1]), asked_at=asked_at, answered_at=time.time())
        except (ValueError, IndexError):
            return Report(host, None, f"it answers {done.stdout[:80]!r}", "does its shell print something at log-in?")
    error, todo = explain(done.stderr)
    return Report(host, None, error, todo)


def explain(words: str) -> tuple[str, str]:
    """Return what ssh's last words mean and what to do about it. **Pure.**"""
    for sign, error, todo in _REASONS:
        if sign in words:
            return error, todo
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "no answer")
    return last.strip()[:200], "try: ssh HOST true"


def _by_srun(plan: Plan, words: Sequence[str]) -> list[Report]:
    """Ask the nodes of a SLURM job through SLURM: ssh into nodes is often forbidden."""
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
        sys.executable,
        "-m",
        "ringtune.launch.probe",
        *words,
    ]
    asked_at = time.time()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PROBE_LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": plan.environment["PATH"]},
    )
    found = {}
    for line in done.stdout.replace("}{", "}\n{").splitlines():
        try:
            answer = json.loads(line)
            found[str(answer["node"])] = answer
        except ValueError:
            continue
    error, todo = explain(done.stderr)
    return [Report(name, found.get(name), error, todo, asked_at, time.time()) for name in names]


def prove_mpi(plan: Plan) -> None:
    """Start MPI once by itself under srun and compare its rank table with the plan's. Raises UsageError if it is wrong.

    Two failures are silent otherwise: srun and MPI that do not understand each other give N jobs of size 1, and PMIx
    versions that do not fit give every rank local rank 0.
    """
    trial = Plan(**{**vars(plan), "command": (sys.executable, "-m", "ringtune.launch.mpi_seat")})
    done = subprocess.run(
        srun.build(trial).argv,
        capture_output=True,
        text=True,
        timeout=PROBE_LIMIT_S * 2,
        check=False,
        env={**environment.for_launcher(os.environ), **plan.environment},
        stdin=subprocess.DEVNULL,
    )
    found = sorted([int(number) for number in numbers] for numbers in _SEAT.findall(done.stdout))  # lines may be joined
    expected = [[slot.rank, slot.size, slot.local_rank, slot.local_size] for slot in plan.slots]
    if found != expected:
        table = "; ".join(
            f"rank {rank} of {size}, local rank {local} of {locals_}" for rank, size, local, locals_ in found
        )
        words = f"MPI started by srun --mpi={plan.srun_mpi} has the ranks: {table or 'none'}"
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        raise UsageError(
            "--launcher srun --controller mpi",
            words + (f" ({last.strip()[:160]})" if not found else ""),
            legal=f"{plan.num_proc} ranks of one job, each with a local rank of its own",
            todo="use --controller gloo, or --launcher mpirun, or another --srun-mpi",
        )
