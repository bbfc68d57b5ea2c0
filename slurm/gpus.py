"""The GPUs that sbatch's options ask for, and how many tasks give each of them a rank (sbatch(1) of SLURM 22.05).

A rank uses one GPU. Whether the cluster has what is asked for is sbatch's to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ringtune.train.contract import UsageError

Options = Mapping[str, str | None]
"""Long name without dashes → value, None for an option without one; in the order in which they are written."""
#: Options that set the number of tasks.
TASKS = ("ntasks", "ntasks-per-node", "ntasks-per-gpu", "ntasks-per-socket", "ntasks-per-core")
_GRES = re.compile(r"(?:gres[/:])?gpu(?:[:=].*)?")  # one resource of --gres or --tres-per-task


@dataclass(frozen=True)
class Request:
    """GPUs by what they are counted; None: not asked for so."""

    total: int | None  # of the job
    per_node: int | None
    per_task: int | None


def request(options: Options) -> Request:
    """Return the GPUs that options ask for. **Pure.**"""
    per_node = [_count(options.get("gpus-per-node")), _count_gres(options.get("gres")), _by_sockets(options)]
    per_task = [_count(options.get("gpus-per-task")), _count_gres(options.get("tres-per-task"))]
    return Request(_count(options.get("gpus")), _largest(per_node), _largest(per_task))


def tasks(options: Options) -> dict[str, str]:
    """Return the option that gives each GPU a rank; {} where the tasks are given, or no GPU is asked for. **Pure.**

    Raises UsageError for tasks that would leave a GPU idle.
    """
    asked = request(options)
    _refuse_several_per_task(options, asked)
    if any(name in options for name in TASKS):
        _refuse_idle(options, asked)
        return {}
    if asked.per_node:
        return {"ntasks-per-node": str(asked.per_node)}
    return {"ntasks": str(asked.total)} if asked.total else {}


def _refuse_several_per_task(options: Options, asked: Request) -> None:
    if asked.per_task is not None and asked.per_task > 1:
        name = "gpus-per-task" if "gpus-per-task" in options else "tres-per-task"
        raise UsageError(
            f"--{name}",
            f"{options[name]} gives a rank {asked.per_task} GPUs, and it uses one",
            legal=f"--{name} with one GPU",
            todo="ask for as many tasks as GPUs",
        )


def _refuse_idle(options: Options, asked: Request) -> None:
    """Raise UsageError where fewer ranks than GPUs are certain."""
    nodes = _number(options.get("nodes"))
    of_job, of_node = _number(options.get("ntasks")), _number(options.get("ntasks-per-node"))
    num_gpus = max(asked.total or 0, (asked.per_node or 0) * (nodes or 1))
    if of_job is not None:
        num_ranks, named = of_job, f"--ntasks {of_job}"
    elif of_node is not None and (nodes or not asked.total):
        num_ranks, named = of_node * (nodes or 1), f"--ntasks-per-node {of_node}"
    else:
        return  # SLURM makes the tasks of what it gives: the job sees them
    if num_ranks < num_gpus:
        raise UsageError(
            named,
            f"{num_ranks} {_plural(num_ranks, 'rank')} for {num_gpus} GPUs: {num_gpus - num_ranks} would be idle",
            legal="a rank for each GPU",
            todo="leave it out, or ask for fewer GPUs",
        )


def _by_sockets(options: Options) -> int | None:
    """Return the GPUs of a node; sbatch refuses those of a socket where it is not told how many sockets there are."""
    per_socket, sockets = _count(options.get("gpus-per-socket")), _number(options.get("sockets-per-node"))
    return None if per_socket is None or sockets is None else per_socket * sockets


def _count(text: str | None) -> int | None:
    """Return the sum of ``[TYPE:]N,...``; a type alone is one."""
    if text is None:
        return None
    return sum(_last_number(part) for part in text.split(",") if part)


def _count_gres(text: str | None) -> int | None:
    """Return the GPUs of ``gpu[:TYPE][:N]`` or ``gres/gpu[:TYPE][=N]`` among other resources."""
    if text is None:
        return None
    mine = [part for part in text.split(",") if _GRES.fullmatch(part)]
    return sum(map(_last_number, mine)) if mine else None


def _last_number(part: str) -> int:
    number = re.split("[:=]", part)[-1]
    return int(number) if number.isdecimal() else 1


def _number(text: str | None) -> int | None:
    """Return the lowest number of ``N`` or ``MIN-MAX``, None for anything else."""
    lowest = (text or "").partition("-")[0]
    return int(lowest) if lowest.isdecimal() else None


def _largest(numbers: list[int | None]) -> int | None:
    return max((each for each in numbers if each is not None), default=None)


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"
