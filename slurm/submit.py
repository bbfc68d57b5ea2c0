"""From what the user asks for to a job in the queue, with everything about it kept in the run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ringtune.slurm import index, job_array, options, provenance, queue, script
from ringtune.slurm import record as records
from ringtune.slurm.profile import Profile
from ringtune.slurm.record import History, Record, unfinished
from ringtune.slurm.script import BatchJob, RetryLimits
from ringtune.train import search, sweep
from ringtune.train.contract import CONFIG_FILE, SEARCH_DIR, UsageError, holds_run


@dataclass(frozen=True)
class Submission:
    """What the user asked for."""

    train: Sequence[str]  # arguments of ringtune-train
    sbatch: Mapping[str, str | None] = field(default_factory=dict)
    profile: Profile = field(default_factory=Profile)
    sweep: Sequence[str] = ()
    search: str | None = None  # with it, sweep is the space of a search
    trials: int | None = None
    pruning: str | None = None
    launcher: str | None = None
    controller: str | None = None
    limits: RetryLimits = field(default_factory=RetryLimits)
    examined: bool = True


def make_job(request: Submission) -> BatchJob:
    """Return the job that a request means. Raises UsageError for everything that can be seen to be wrong now.

    The training flags are checked as ringtune-train checks them, those of a sweep as `sweep.to_check` has it.
    """
    from ringtune.train import config as training

    config, dry_run = training.parse(list(request.train))
    if dry_run:
        raise UsageError(
            "--dry_run", "a job that trains nothing", legal="ringtune-slurm script shows what would be submitted"
        )
    searched, axes = _runs(request, training)
    folder = Path(config.output_dir).absolute()
    given = {**request.profile.sbatch, **request.sbatch}
    sbatch = options.complete(
        {
            "job-name": given.get("job-name") or folder.name or "ringtune",
            "chdir": given.get("chdir") or str(Path.cwd()),  # relative paths mean what they mean here
            **given,
            **_array(given, axes),
        }
    )
    return BatchJob(
        folder=str(folder),
        config=training.to_yaml(dataclasses.replace(config, output_dir=str(folder))),
        sbatch=sbatch,
        python=request.profile.python or sys.executable,
        version=metadata.version("ringtune"),
        setup=request.profile.setup,
        launcher=request.launcher or request.profile.launcher,
        controller=request.controller or request.profile.controller,
        carry=request.profile.carry,
        container=request.profile.container,
        limits=request.limits,
        axes=axes,
        search=searched,
        examined=request.examined,
    )


def _runs(request: Submission, training: Any) -> tuple[search.Search | None, sweep.Axes]:
    """Return the search that is asked for, if one is, and the runs; their flags are checked. training: the module."""
    found = search.of_options(request, {name: each.type for name, each in training.FIELDS.items()})
    if found is None:
        axes = sweep.parse(request.sweep)
        for settings in sweep.to_check(axes):
            training.parse([*request.train, *sweep.flags(settings)], lambda line: None)  # reported above
        return None, axes
    if not request.profile.python:  # the nodes have the Python that submits
        search.require_optuna()
    search.check(found, request.train, training.parse, lambda line: None)
    return found, found.axes


def _array(given: Mapping[str, str | None], axes: sweep.Axes) -> dict[str, str]:
    """Return the array option of a sweep: all runs, or those the user names; ``%N`` limits how many run at once."""
    asked = given.get("array")
    if not axes:
        if asked is not None:
            raise UsageError(
                "--array",
                f"{asked} without a sweep: its tasks would share one run directory",
                legal="--sweep seed=1..5 gives each a folder of its own",
                todo="use --sweep",
            )
        return {}
    num_runs = len(sweep.expand(axes))
    tasks, limit = job_array.parse(asked or "", num_runs)
    return {"array": asked if asked and tasks else f"0-{num_runs - 1}{limit}"}


def after(targets: Sequence[str], sbatch: Mapping[str, str | None]) -> list[str]:
    """Return the words of sbatch by which a job waits until others have finished.

    targets: run directories, or ids of any jobs. sbatch: the job's own options, whose dependency holds too. Raises
    UsageError for a run that has no job, or none that may still finish, and where SLURM does not answer.
    """
    if not targets:
        return []
    ids = [job_id for target in targets for job_id in _job_ids(target)]
    if not ids:
        return []
    own = sbatch.get("dependency")
    return [f"--dependency={','.join([*([own] if own else []), 'afterok:' + ':'.join(dict.fromkeys(ids))])}"]


def _job_ids(target: str) -> list[str]:
    """Return the ids of the latest jobs of a run or a sweep that have not finished, or the id that is given."""
    if re.fullmatch(r"\d+(_\d+)?", target) and not Path(target).is_dir():
        return [target]
    # SLURM forgets a job minutes after its end, and refuses to wait for one that it does not know.
    runs = unfinished(index.find(target))
    ids = [History.of(Record(run).events()).job_id for run in runs]
    if not all(ids):
        raise UsageError(f"--after {target}", "it has no job yet", legal="a run that was submitted, or a job's id")
    alive = active(runs)
    for run in runs:
        if run not in alive and Record(run).finished() is None:  # nor has it finished meanwhile
            raise UsageError(
                f"--after {target}",
                f"{run} is over and has not finished: a job behind it would wait for ever",
                legal="a run that may still finish",
                todo=f"ringtune-slurm resume {run} first",
            )
    return ids


def submit(job: BatchJob, argv: Sequence[str], words: Sequence[str] = (), *, tested: bool = True) -> str:
    """Write script, configuration and record into the run directory, submit, and return the job's id.

    words: more options of sbatch, of this submission alone. Raises UsageError if a job of the run is still alive, or
    with sbatch's own words; script and record stay then.
    """
    queue.require("sbatch")
    folder, runs = Path(job.folder), run_folders(job)
    refuse_active(active(runs))
    text = script.text(job)
    _report_replaced(folder, runs)
    kept = Record(folder).folder
    if len(runs) > 500:  # it takes a minute for 5,000
        print(f"writing the records of {len(runs)} runs", file=sys.stderr, flush=True)
    origin = provenance.of_submission(argv)
    with _writing(kept):
        kept.mkdir(parents=True, exist_ok=True)
        path = kept / records.SCRIPT_FILE
        path.write_text(text, encoding="utf-8")
        (kept / CONFIG_FILE).write_text(job.config, encoding="utf-8")
        if job.axes:
            content = {"axes": job.axes, "runs": [run.name for run in runs]}
            (kept / records.SWEEP_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        for task, run in enumerate(runs):
            record = Record(run)
            record.folder.mkdir(parents=True, exist_ok=True)
            facts = {**origin, "script": str(path), "task": task if job.axes else None}
            (record.folder / records.SUBMISSION_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    tasks = tasks_of(job, len(runs))
    if tasks is not None and len(tasks) < len(runs):
        print(
            f"--array={job.sbatch['array']}: {len(tasks)} of {len(runs)} runs; ringtune-slurm resume {folder} submits "
            "the others",
            file=sys.stderr,
        )
        runs = [runs[task] for task in tasks]
    return send(path, runs, tasks=tasks, log=script.log_pattern(job), words=words, tested=tested)


def tasks_of(job: BatchJob, num_runs: int) -> list[int] | None:
    """Return the tasks of a sweep's array that are submitted, None outside a sweep. **Pure.**"""
    return job_array.parse(job.sbatch["array"] or "", num_runs)[0] if job.axes else None


def _report_replaced(folder: Path, runs: Sequence[Path]) -> None:
    """Say that the folder's list of runs will be that of another sweep."""
    try:
        before = records.runs_below(folder)
    except UsageError:  # of a submission that was killed: it is written anew
        return
    gone = [run for run in before if run not in runs and before != [folder]]
    if gone:
        print(
            f"{folder}: a sweep of {gone[0].name}{', …' if len(gone) > 1 else ''} was submitted there before: from now "
            "on the folder means the new one; name those runs by their own folders, or by their job's id",
            file=sys.stderr,
        )


def send(
    path: Path, runs: Sequence[Path], *, tasks: Sequence[int] | None, log: str, words: Sequence[str], tested: bool
) -> str:
    """Submit a script for runs, of a sweep for its tasks, write that into their records and return the job's id.

    log: with sbatch's placeholders. words: more options of sbatch. Raises UsageError with sbatch's own words.
    """
    for run in runs:
        record = Record(run)
        record.add(records.SUBMITTED, previous=record.signature(), words=list(words))
    try:
        if tested:
            queue.test(str(path), words)
        job_id = queue.submit(str(path), words)
    except queue.SlurmError as error:
        for run in runs:
            Record(run).add(records.REFUSED, words=str(error))
        raise UsageError(
            "sbatch",
            str(error),
            legal="a request that this cluster can meet",
            todo=f"the script is kept: {path}; --no-test submits without asking first",
        ) from None
    by_id: dict[str, Path] = {}
    for number, run in enumerate(runs):
        own_id = job_id if tasks is None else f"{job_id}_{tasks[number]}"
        own_log = log.replace("%j", job_id).replace("%A_%a", own_id).replace("%%", "%")
        Record(run).add(records.QUEUED, job_id=own_id, log=own_log)
        by_id[own_id] = run
    if tasks is not None:
        by_id[job_id] = path.parents[1]
    index.remember(by_id)
    return job_id


def run_folders(job: BatchJob) -> list[Path]:
    """Return the run directories of a job; changes nothing.

    Raises UsageError for a folder that holds something else, or a run where a sweep is to be.
    """
    folder = Path(job.folder)
    runs = [folder / sweep.folder_name(settings) for settings in sweep.expand(job.axes)]
    if (folder / records.SLURM_DIR / records.SWEEP_FILE).exists() != (runs != [folder]) and Record(
        folder
    ).folder.exists():
        raise UsageError(
            f"--output_dir {folder}",
            "it holds " + ("a run" if runs != [folder] else "a sweep"),
            legal="a run in one folder, a sweep in another",
        )
    if not (folder / records.SLURM_DIR).exists():  # what a first submission has put there is ours, whatever it is
        holds_run(folder, [SEARCH_DIR, *(run.name for run in runs)])
    return runs


def active(runs: Sequence[Path]) -> dict[Path, queue.QueuedJob]:
    """Return the jobs that wait or run, by run. Raises UsageError if SLURM does not answer."""
    ids = {History.of(Record(run).events()).job_id: run for run in runs}
    ids.pop("", None)
    try:
        return {ids[job.job_id]: job for job in queue.jobs(list(ids)).values() if job.is_active}
    except queue.NoAnswer as error:
        raise UsageError(
            "SLURM", str(error), legal="a controller that answers", todo="try again when it does"
        ) from None


def refuse_active(jobs: Mapping[Path, queue.QueuedJob]) -> None:
    """Raise UsageError if there is a job that waits or runs."""
    for run, job in jobs.items():
        raise UsageError(
            str(run),
            f"job {job.job_id} of it is {job.state}",
            legal="one job at a time for a run",
            todo=f"wait for it, or ringtune-slurm cancel {job.job_id}",
        )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            str(folder), str(error.strerror), legal="a folder one may write to", todo="choose another --output_dir"
        ) from None
