"""A run, or what is left of a sweep, in the queue once more: by the script that was submitted first."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringtune.slurm import job_array, queue, script, submit
from ringtune.slurm import record as records
from ringtune.slurm.record import Record
from ringtune.train import sweep
from ringtune.train.contract import UsageError


def resume(runs: Sequence[Path], words: Sequence[str], *, tested: bool = True) -> str:
    """Submit the script of a run, or of runs of one sweep, again; ``words`` are sbatch options that win over its own.

    Runs of a sweep whose jobs wait or run are left alone. Returns the job's id. Raises UsageError, also where no run is
    left, and for a run that the script does not train (any more).
    """
    queue.require("sbatch")
    if not all(Record(run).submission() for run in runs):
        raise UsageError(
            str(runs[0]), "it was not submitted by ringtune-slurm submit", legal="a run directory with its script"
        )
    runs = _over(runs)
    submissions = [Record(run).submission() for run in runs]
    path = Path(submissions[0]["script"])
    _refuse_others(runs, submissions)
    asked = [word.partition("=")[2] for word in words if word.partition("=")[0] == "--array"]
    if submissions[0]["task"] is None:
        if asked:
            raise UsageError("--array", f"{asked[-1]} of a run that is not of a sweep", legal="a sweep's folder")
        return submit.send(path, runs, tasks=None, log=str(path.with_name("%j.log")), words=words, tested=tested)
    by_task = dict(zip((each["task"] for each in submissions), runs, strict=True))
    tasks, limit = _tasks(sorted(by_task), path, asked)
    words = [f"--array={sweep.spans(tasks)}{limit}", *(word for word in words if word.partition("=")[0] != "--array")]
    log = str(path.with_name("%A_%a.log"))
    return submit.send(path, [by_task[task] for task in tasks], tasks=tasks, log=log, words=words, tested=tested)


def _tasks(left: Sequence[int], path: Path, asked: Sequence[str]) -> tuple[list[int], str]:
    """Return which tasks to submit of those that are left, and the limit of how many run at once, "" if none.

    asked: what the user says of it now; without it the script's own limit holds. Raises UsageError.
    """
    if not asked:
        return list(left), "".join(script.directives(path).get("array", "").partition("%")[1:])
    named, limit = job_array.parse(asked[-1], len(records.runs_below(path.parents[1])))
    tasks = [task for task in left if named is None or task in named]
    others = sorted({*(named or ())} - {*tasks})
    if not tasks:
        raise UsageError("--array", f"{asked[-1]}: no run of these tasks is left to submit", legal=sweep.spans(left))
    if others:
        print(
            f"left alone: tasks {sweep.spans(others)} of --array, finished, under way or not asked for", file=sys.stderr
        )
    return tasks, limit


def _refuse_others(runs: Sequence[Path], submissions: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError for a run that the script of the others does not train: a later submission replaced the script,
    or the run has one of its own."""
    path = Path(next((each for each in submissions if each["task"] is not None), submissions[0])["script"])
    trained = records.runs_below(path.parents[1])
    for run, submission in zip(runs, submissions, strict=True):
        task = submission["task"]
        if submission["script"] != str(path):
            raise UsageError(
                str(run),
                f"it was submitted by a script of its own, {submission['script']}",
                legal=f"runs of one script, {path}",
                todo=f"ringtune-slurm resume {run}, then the others",
            )
        own = trained[task] if task is not None and task < len(trained) else None
        if task is not None and (own is None or own.resolve() != run.resolve()):  # a link may name it
            other = f"it has no task {task} now" if own is None else f"task {task} of it is {own.name} now"
            raise UsageError(
                str(run),
                f"a later submission replaced {path}: {other}",
                legal="a run of the sweep that its folder was submitted for last",
                todo="submit its sweep again, ringtune-slurm submit --sweep ...: it goes on from its checkpoint",
            )


def _over(runs: Sequence[Path]) -> list[Path]:
    """Return the runs that no job waits or runs for, and report how many others there are."""
    alive = submit.active(runs)
    left = [run for run in runs if run not in alive]
    if not left:
        submit.refuse_active(alive)
    if alive:
        print(f"left alone: {len(alive)} run(s) whose jobs wait or run", file=sys.stderr)
    return left
