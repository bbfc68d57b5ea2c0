"""Where the hosts of a job come from: ``-H``, a hostfile, the batch system's job, or this machine; in that order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringtune.launch.hosts import Host, expand, parse_hosts, read_hostfile, split_outside_brackets
from ringtune.train.contract import UsageError

LOCAL = "localhost"
#: The variables in which batch systems name the file with a job's hosts. (PBS and Torque: pbs_resources(7); OAR:
#: oarsub(1); Grid Engine: submit(1); LSF: "Environment variables set for job execution".)
HOSTFILE_VARIABLES = ("PBS_NODEFILE", "OAR_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE")


@dataclass(frozen=True)
class Allocation:
    """The hosts a job may use."""

    hosts: tuple[Host, ...]
    source: str  # where they come from, for people
    in_slurm: bool = False

    @property
    def num_slots(self) -> int:
        """Number of ranks that fit."""
        return sum(host.slots for host in self.hosts)


def find(hosts: str | None, hostfile: Path | None, num_proc: int | None, environ: Mapping[str, str]) -> Allocation:
    """Return the hosts of the job.

    Raises UsageError for hosts that cannot be parsed, and if no source gives the number of ranks.
    """
    if hosts is not None and hostfile is not None:
        raise UsageError("-H --hostfile", "both are given", legal="one of them")
    if hosts is not None:
        return Allocation(tuple(parse_hosts(hosts)), "-H")
    if hostfile is not None:
        return Allocation(tuple(read_hostfile(hostfile)), f"--hostfile {hostfile}")
    if "SLURM_JOB_NODELIST" in environ:
        return Allocation(tuple(slurm_hosts(environ)), f"SLURM job {environ.get('SLURM_JOB_ID', '?')}", in_slurm=True)
    given = hostfiles(environ)
    if given:
        return Allocation(tuple(read_hostfile(given[0][1])), f"{given[0][0]} {given[0][1]}")
    if num_proc is None:
        raise UsageError(
            "-np",
            "the number of ranks is not given",
            legal="-np N, -H host:N, --hostfile FILE, or a job of SLURM, PBS, OAR, Grid Engine or LSF",
        )
    return Allocation((Host(LOCAL, max(num_proc, 1)),), "this machine")


def hostfiles(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return the hostfile that a batch system names, and the variable; nothing without one. **Pure.**

    Raises UsageError where two variables name two files: which one is this job's is not known.
    """
    given = [(name, Path(environ[name])) for name in HOSTFILE_VARIABLES if environ.get(name)]
    if len({path for _, path in given}) > 1:
        words = ", ".join(f"{name}={path}" for name, path in given)
        raise UsageError(
            " ".join(name for name, _ in given),
            f"they name different files: {words}",
            legal="the hosts of one job",
            todo="say which with --hostfile",
        )
    return given


def is_of_a_batch_system(environ: Mapping[str, str]) -> bool:
    """Return whether a batch system names the hosts of this job. **Pure.**"""
    return "SLURM_JOB_NODELIST" in environ or bool(hostfiles(environ))


def slurm_hosts(environ: Mapping[str, str]) -> list[Host]:
    """Return the nodes of a SLURM job with their tasks, one number per node. **Pure.**

    The variables are those of sbatch(1), output environment. Raises UsageError.
    """
    names = expand_nodelist(environ["SLURM_JOB_NODELIST"])
    if not all(names):
        raise UsageError(
            "SLURM_JOB_NODELIST",
            f"{environ['SLURM_JOB_NODELIST']!r} names a node without a name",
            legal="such as n[01-03]",
            todo="unset it outside a SLURM job, or name the hosts with -H",
        )
    for variable in ("SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE"):
        if variable in environ:
            tasks = expand_tasks(environ[variable], variable)
            if len(tasks) != len(names):
                raise UsageError(
                    variable,
                    f"{environ[variable]!r} counts {len(tasks)} nodes, the job has {len(names)}",
                    legal="one number a node",
                    todo="name the hosts with -H",
                )
            return [Host(name, slots) for name, slots in zip(names, tasks, strict=True)]
    return [Host(name, 1) for name in names]


def expand_nodelist(text: str) -> list[str]:
    """Return the names of a SLURM nodelist such as ``n[01-03],gpu-a``. **Pure.**"""
    where = "SLURM_JOB_NODELIST"
    return [name for part in split_outside_brackets(text) for name in expand(part, where)]


def expand_tasks(text: str, where: str) -> list[int]:
    """Return one number per node of ``2(x3),1``. **Pure.**"""
    result: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not match or int(match[1]) < 1:
            raise UsageError(
                where, f"{part!r} in {text!r} is not understood", legal="such as 2(x3),1", todo="name hosts with -H"
            )
        result += [int(match[1])] * int(match[2] or 1)
    return result
