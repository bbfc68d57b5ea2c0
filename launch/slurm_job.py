"""The nodes of a SLURM job and how many ranks each gets (sbatch(1), OUTPUT ENVIRONMENT VARIABLES)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ringtune.launch.hosts import MOST_HOSTS_OF_A_RANGE, Host, expand, split_outside_brackets
from ringtune.train.contract import UsageError

ANSWER_LIMIT_S = 60
CONTROLLER_PATIENCE_S = 300  # for slurmctld to be there again, as srun itself waits for it
#: What SLURM's commands say of a controller that is away, or too busy to answer.
AWAY = re.compile(r"Unable to contact|Connection refused|timed out")
#: Set where the job's tasks were asked for. Without them SLURM counts a task for every CPU of a whole node.
TASK_REQUESTS = (
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_NTASKS_PER_SOCKET",
    "SLURM_NTASKS_PER_CORE",
    "SLURM_NTASKS_PER_GPU",
)


@dataclass(frozen=True)
class JobNodes:
    """The nodes of a job with the ranks of each."""

    hosts: list[Host]
    how: str = ""  # the ranks were counted, where no tasks were asked for
    unasked_gpus: Mapping[str, int] = field(default_factory=dict)  # by node, where they came with whole nodes
    other_gres: tuple[str, ...] = ()  # that the job did ask for, such as lscratch:200; where GPUs are unasked


def is_in_job(environ: Mapping[str, str]) -> bool:
    """Return whether this runs in a job; a heterogeneous one has lists of nodes by component. **Pure.**"""
    return "SLURM_JOB_NODELIST" in environ or "SLURM_HET_SIZE" in environ


def job_nodes(environ: Mapping[str, str], ask: Callable[[str], str] | None = None) -> JobNodes:
    """Return the nodes of a job with the ranks of each.

    ask: returns what ``scontrol show job -d`` says of a job id; by default it is asked. Raises UsageError.
    """
    names = node_names(environ)
    tasks = _tasks(environ, len(names))
    if tasks is None:
        return JobNodes([Host(name, 1) for name in names])
    if any(each in environ for each in TASK_REQUESTS) or "SLURM_JOB_CPUS_PER_NODE" not in environ:
        return JobNodes([Host(name, number) for name, number in zip(names, tasks, strict=True)])
    answer = (ask or show)(own_id(environ))
    gpus = gpus_by_node(answer)
    if gpus:
        hosts = [Host(name, gpus.get(name, 0) or 1) for name in names]
        how = "a rank for each GPU"
        if re.search(r"TresPer\w+=\S*gpu", answer):
            return JobNodes(hosts, how)
        return JobNodes(hosts, how, gpus, _gres_per_node(answer))
    how = "a rank for each node; --ntasks-per-node or --ranks-per-node sets more"
    return JobNodes([Host(name, 1) for name in names], how)


def _gres_per_node(answer: str) -> tuple[str, ...]:
    match = re.search(r"TresPerNode=(\S+)", answer)
    return tuple(re.sub(r"^gres[:/]", "", each) for each in match[1].split(",")) if match else ()


def step_gres(nodes: JobNodes, names: Sequence[str]) -> str:
    """Return what a step on some nodes has to ask for to get the GPUs that came with them, "" for nothing. **Pure.**

    A step gets what its job asked for, and of what came with whole nodes only what it asks for itself (srun(1),
    --gres), by node. Raises UsageError where the nodes differ in their GPUs.
    """
    counts = {nodes.unasked_gpus.get(name, 0) for name in names}
    if not nodes.unasked_gpus:
        return ""
    if len(counts) > 1:
        raise UsageError(
            "SLURM job",
            f"its nodes have {' and '.join(map(str, sorted(counts)))} GPUs, which came with the nodes: a step cannot "
            "ask for all of them",
            legal="nodes with as many GPUs each",
            todo="ask for GPUs with --gpus-per-node or --gpus",
        )
    number = counts.pop()
    return ",".join([*nodes.other_gres, *([f"gpu:{number}"] if number else [])])


def own_id(environ: Mapping[str, str]) -> str:
    """Return the id by which SLURM knows this job alone: that of an array's first task is the whole array's, too.

    **Pure.**
    """
    if "SLURM_ARRAY_JOB_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def node_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of a job's nodes. **Pure.** Raises UsageError."""
    components = environ.get("SLURM_HET_SIZE", "1")
    if components not in ("", "0", "1"):
        raise UsageError(
            f"SLURM job {environ.get('SLURM_JOB_ID', '?')}",
            f"it is heterogeneous, of {components} components, and the ranks would start on the first alone",
            legal="a job of one component",
            todo="ask for one, or name all hosts with -H",
        )
    names = expand_nodelist(environ["SLURM_JOB_NODELIST"])
    if not all(names):
        raise UsageError(
            "SLURM_JOB_NODELIST",
            f"{environ['SLURM_JOB_NODELIST']!r} names a node without a name",
            legal="such as n[01-03]",
            todo="unset it outside a SLURM job, or name the hosts with -H",
        )
    return names


def _tasks(environ: Mapping[str, str], num_nodes: int) -> list[int] | None:
    """Return the tasks of each node, None where SLURM does not say. **Pure.** Raises UsageError."""
    for variable in ("SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE"):
        if variable in environ:
            tasks = expand_tasks(environ[variable], variable)
            if len(tasks) != num_nodes:
                raise UsageError(
                    variable,
                    f"{environ[variable]!r} counts {len(tasks)} nodes, the job has {num_nodes}",
                    legal="one number a node",
                    todo="name the hosts with -H",
                )
            return tasks
    return None


def cpus_per_task(environ: Mapping[str, str]) -> int | None:
    """Return the CPUs that a job asked for each of its tasks, None where it did not. **Pure.**"""
    text = environ.get("SLURM_CPUS_PER_TASK", "")
    return int(text) if text.isdecimal() else None


def gpus_by_node(answer: str) -> dict[str, int]:
    """Return the GPUs of each node by ``scontrol show job -d``. **Pure.**

    A line has ``Nodes=n[1-2] ... GRES=gpu:a100:4(IDX:0-3),...``.
    """
    result: dict[str, int] = {}
    for names, resources in re.findall(r"^\s*Nodes=(\S+) .*?GRES=(\S*)", answer, flags=re.MULTILINE):
        counts = [int(each) for each in re.findall(r"gpu(?::[^:,(]+)?:(\d+)", resources)]
        for name in expand_nodelist(names):
            result[name] = result.get(name, 0) + sum(counts)
    return {name: number for name, number in result.items() if number}


def show(job_id: str) -> str:
    """Return what SLURM says of a job; waits for a controller that is away. Raises UsageError without an answer."""
    command = ["scontrol", "show", "job", "-d", job_id]
    deadline = time.monotonic() + CONTROLLER_PATIENCE_S
    while True:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=ANSWER_LIMIT_S, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_known(job_id, str(error)) from None
        if done.returncode == 0:
            return done.stdout
        if not AWAY.search(done.stderr) or time.monotonic() > deadline:
            raise _not_known(job_id, done.stderr)
        print(
            f"SLURM does not answer; asking again for {deadline - time.monotonic():.0f} s", file=sys.stderr, flush=True
        )
        time.sleep(5.0)


def _not_known(job_id: str, words: str) -> UsageError:
    return UsageError(
        f"SLURM job {job_id}",
        f"which nodes have its GPUs is not known: {' '.join(words.split())}",
        legal="a job whose tasks are given",
        todo="ask for tasks with --ntasks-per-node",
    )


def expand_nodelist(text: str) -> list[str]:
    """Return the names of a SLURM nodelist such as ``n[01-03],gpu-a``. **Pure.**"""
    where = "SLURM_JOB_NODELIST"
    return [name for part in split_outside_brackets(text) for name in expand(part, where)]


def expand_tasks(text: str, where: str) -> list[int]:
    """Return one number per node of ``2(x3),1``. **Pure.**"""
    result: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", part.strip())
        if not match or int(match[1]) < 1 or len(result) + int(match[2] or 1) > MOST_HOSTS_OF_A_RANGE:
            raise UsageError(
                where, f"{part!r} in {text!r} is not understood", legal="such as 2(x3),1", todo="name hosts with -H"
            )
        result += [int(match[1])] * int(match[2] or 1)
    return result
