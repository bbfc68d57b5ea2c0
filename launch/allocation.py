"""Where the hosts of a job come from: ``-H``, a hostfile, the batch system's job, or this machine; in that order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ringtune.launch import slurm_job
from ringtune.launch.hosts import Host, parse_hosts, read_hostfile
from ringtune.train.contract import UsageError

LOCAL = "localhost"
THIS_MACHINE = "this machine"
#: The variables in which batch systems name the file with a job's hosts. (PBS and Torque: pbs_resources(7); OAR:
#: oarsub(1); Grid Engine: submit(1); LSF: "Environment variables set for job execution".)
HOSTFILE_VARIABLES = ("PBS_NODEFILE", "OAR_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE")


@dataclass(frozen=True)
class Allocation:
    """The hosts a job may use."""

    hosts: tuple[Host, ...]
    source: str  # where they come from, for people
    in_slurm: bool = False
    is_counted: bool = False  # the ranks of a SLURM job by its GPUs or nodes, since it asked for no tasks
    job: slurm_job.JobNodes | None = None  # of SLURM

    @property
    def num_slots(self) -> int:
        """Number of ranks that fit."""
        return sum(host.slots for host in self.hosts)


def find(
    hosts: str | None,
    hostfile: Path | None,
    num_proc: int | None,
    environ: Mapping[str, str],
    ranks_per_node: int | None = None,
) -> Allocation:
    """Return the hosts of the job.

    ranks_per_node: in place of what a hostfile or a batch system says. Raises UsageError for hosts that cannot be
    parsed, and if no source gives the number of ranks.
    """
    found = _find(hosts, hostfile, num_proc, environ)
    if ranks_per_node is None and found.is_counted and num_proc is not None and num_proc > found.num_slots:
        ranks_per_node = math.ceil(num_proc / len(found.hosts))  # nobody has said how many fit
    if ranks_per_node is None:
        return found
    if hosts is not None or found.source == THIS_MACHINE:
        raise UsageError(
            "--ranks-per-node",
            f"the hosts are those of {found.source}, which says how many ranks each has",
            legal="with --hostfile or in a job of a batch system",
            todo="use -H host:N or -np N",
        )
    names = dict.fromkeys(host.name for host in found.hosts)
    return replace(found, hosts=tuple(Host(name, ranks_per_node) for name in names))


def _find(hosts: str | None, hostfile: Path | None, num_proc: int | None, environ: Mapping[str, str]) -> Allocation:
    if hosts is not None and hostfile is not None:
        raise UsageError("-H --hostfile", "both are given", legal="one of them")
    if hosts is not None:
        return Allocation(tuple(parse_hosts(hosts)), "-H")
    if hostfile is not None:
        return Allocation(tuple(read_hostfile(hostfile)), f"--hostfile {hostfile}")
    if slurm_job.is_in_job(environ):
        nodes = slurm_job.job_nodes(environ)
        source = f"SLURM job {environ.get('SLURM_JOB_ID', '?')}" + (f" ({nodes.how})" if nodes.how else "")
        return Allocation(tuple(nodes.hosts), source, True, bool(nodes.how), nodes)
    given = hostfiles(environ)
    if given:
        return Allocation(tuple(read_hostfile(given[0][1])), f"{given[0][0]} {given[0][1]}")
    if num_proc is None:
        raise UsageError(
            "-np",
            "the number of ranks is not given",
            legal="-np N, -H host:N, --hostfile FILE, or a job of SLURM, PBS, OAR, Grid Engine or LSF",
        )
    return Allocation((Host(LOCAL, max(num_proc, 1)),), THIS_MACHINE)


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
    return slurm_job.is_in_job(environ) or bool(hostfiles(environ))
