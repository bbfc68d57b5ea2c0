"""What follows when the ranks have ended: pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringtune.launch.hosts import split_outside_brackets
from ringtune.slurm.script import RetryLimits
from ringtune.train.contract import EXIT_FINISHED, EXIT_REQUEUE, EXIT_USAGE

FINISHED, REQUEUE, STOP, SLURM = "finished", "requeue", "stop", "slurm"


@dataclass(frozen=True)
class JobEnd:
    """How one start of a job ended."""

    exit_code: int  # of the ranks, or of what came before them
    reason: str  # for people
    last_line: str = ""  # of the rank that failed
    bad_nodes: tuple[str, ...] = ()  # nodes that another try should avoid


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    what: str  # finished, requeue or stop; slurm: not ours to decide
    reason: str


def decide(end: JobEnd, num_idle_tries: int, num_requeues: int, num_nodes: int, limits: RetryLimits) -> Decision:
    """Return what follows an end of the ranks. **Pure.**

    num_idle_tries: starts in a row without a step more, this one included. A wrong command line does not get better by
    trying again; a node that failed may be left out; a crash after new steps may have been bad luck.
    """
    if end.exit_code == EXIT_FINISHED:
        return Decision(FINISHED, end.reason)
    if end.exit_code == EXIT_USAGE and not end.bad_nodes:
        return Decision(STOP, f"{end.reason}; another try would end alike")
    if len(end.bad_nodes) >= max(num_nodes, 1):
        return Decision(STOP, f"{end.reason}; no node is left")
    if num_requeues >= limits.max_requeues:
        return Decision(STOP, f"{end.reason}; requeued {num_requeues} times, which is the limit (--max-requeues)")
    if num_idle_tries >= limits.max_tries:
        hint = "is the time limit too short for a step?" if end.exit_code == EXIT_REQUEUE else "see ringtune-slurm logs"
        return Decision(STOP, f"{end.reason}; {num_idle_tries} tries without a step more (--max-tries): {hint}")
    return Decision(REQUEUE, end.reason)


def one_time_flags(config: Mapping[str, Any], *, is_signed: bool, has_checkpoint: bool) -> list[str]:
    """Return the flags by which a start overwrites, or begins from elsewhere, as its submission asked. **Pure.**

    They belong to the first start, not to every one: a requeued job must not overwrite what it has done. They hold
    until the run has made the directory its own (is_signed), the checkpoint from elsewhere until there is one of its
    own.
    """
    overwrites = bool(config.get("overwrite_output_dir")) and not is_signed
    source = str(config.get("resume_from_checkpoint") or "null")
    if is_signed and (source == "latest" or has_checkpoint):
        source = "null"
    return ["--overwrite_output_dir", str(overwrites).lower(), "--resume_from_checkpoint", source]


def exclude(already: str, bad_nodes: Sequence[str]) -> str:
    """Return the list of nodes to leave out, each name once. **Pure.** already: such as ``n[1,3],x[1,3]``."""
    return ",".join(dict.fromkeys([*filter(None, split_outside_brackets(already)), *bad_nodes]))
