"""How a job runs again: it requeues itself, or where the cluster forbids that, submits the next one behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringtune.slurm import index, queue
from ringtune.slurm import record as records
from ringtune.slurm.decide import exclude
from ringtune.slurm.record import History, Record
from ringtune.slurm.script import directives

END_PATIENCE_S = 120  # for SLURM to end this step once it is requeued
#: Options by which one submission says which tasks start and when, and not what a job of the run is.
ONCE = ("array", "begin", "dependency", "hold")


@dataclass(frozen=True)
class RunningJob:
    """What is needed to run this job again."""

    id: str
    record: Record
    script: str  # the submitted batch script
    log_of: Callable[[str], str]  # job id → its log
    array_task: str  # of a sweep; "" outside one


def run_again(job: RunningJob, bad_nodes: Sequence[str]) -> None:
    """Requeue the job, or submit the next one, without the bad nodes. A requeued job does not return: SLURM ends it."""
    avoided = exclude("", bad_nodes)
    try:
        avoided = exclude(queue.excluded(job.id), bad_nodes)
        queue.requeue(job.id)
    except queue.SlurmError as error:
        _submit_next(job, str(error), avoided)
        return
    if bad_nodes:
        _avoid(job.id, avoided)
    threading.Event().wait(END_PATIENCE_S)  # SLURM ends this process


def _avoid(job_id: str, nodes: str) -> None:
    """Let the next start avoid the nodes. Only a job that waits can be changed, so it is requeued first."""
    for _ in range(10):
        try:
            queue.leave_out(job_id, nodes)
            print(f"ringtune-slurm: the next start avoids {nodes}", flush=True)
            return
        except queue.SlurmError as error:
            reason = str(error)
            time.sleep(0.5)
    print(f"ringtune-slurm: the next start may get {nodes} again: {reason}", flush=True)


def _submit_next(job: RunningJob, why: str, avoided: str) -> None:
    """Submit the script again, with the options of the latest submission and without the nodes that are avoided."""
    own = directives(Path(job.script))
    options = [*_words(job.record), f"--dependency=afterany:{job.id}"]
    options += ["--begin=now"] if "begin" in own else []
    options += [f"--array={job.array_task}"] if job.array_task else []
    options += [f"--exclude={avoided}"] if avoided else []
    try:
        job_id = queue.submit(job.script, options)
    except queue.SlurmError as error:
        job.record.add(records.REFUSED, words=str(error))
        print(f"ringtune-slurm: neither requeued ({why}) nor submitted again ({error})", flush=True)
        return
    job_id = f"{job_id}_{job.array_task}" if job.array_task else job_id
    reason = f"requeueing is forbidden here ({why})"
    job.record.add(records.QUEUED, job_id=job_id, log=job.log_of(job_id), words=reason)
    index.remember({job_id: job.record.run})
    print(f"ringtune-slurm: {reason}; job {job_id} goes on", flush=True)
    if "hold" in own:
        _release(job_id)


def _words(record: Record) -> list[str]:
    """Return the options that the user gave sbatch beside the script, when the run was submitted last."""
    sent = History.of(record.events()).last(records.SUBMITTED) or {}
    return [word for word in sent.get("words", ()) if word.removeprefix("--").partition("=")[0] not in ONCE]


def _release(job_id: str) -> None:
    """Let a job start that its script's own --hold keeps back: the user has released the run already."""
    try:
        queue.release(job_id)
    except queue.SlurmError as error:
        print(f"ringtune-slurm: job {job_id} is held by its script: scontrol release {job_id} ({error})", flush=True)
