"""What SLURM's accounting remembers of jobs that slurmctld has forgotten (sacct(1) of SLURM 22.05)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ringtune.slurm import job_array
from ringtune.slurm.queue import NotHere, QueuedJob, SlurmError, run

ANSWER_LIMIT_S = 15  # a database may be slow; what the run directories record is there at once
_NONE = "Slurm accounting storage is disabled"


class Silent(SlurmError):
    """The accounting was asked and gave no answer; the text is its own words."""


def ended(ids: Iterable[str]) -> dict[str, QueuedJob]:
    """Return the jobs of these ids that have ended by the accounting; {} without accounting. Raises Silent.

    A job that slurmctld does not know runs no more, whatever the accounting says: the record of its end was lost, or
    is on its way.
    """
    wanted = set(ids)
    if not wanted:
        return {}
    # Tasks that never started have one line for them all, which sacct gives where the array itself is asked for.
    arrays = sorted({each.partition("_")[0] for each in wanted})
    clusters = os.environ.get("SLURM_CLUSTERS")  # which squeue follows, and sacct does not
    where = ["-M", clusters] if clusters else []
    command = ["sacct", *where, "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "JobID,State,NodeList"]
    try:
        # Lists of an array's tasks are cut off after 64 letters where nothing else is said.
        answer = run(command, patience_s=0, limit_s=ANSWER_LIMIT_S, environment={"SLURM_BITSTR_LEN": "0"})
    except SlurmError as error:
        if _NONE in str(error) or isinstance(error, NotHere):
            return {}
        raise Silent(str(error)) from None
    return {job.job_id: job for job in parse(answer) if job.job_id in wanted and not job.is_active}


def parse(answer: str) -> list[QueuedJob]:
    """Return the jobs of sacct's lines, ``id|state|nodes``. **Pure.** (CANCELLED by UID is CANCELLED.)"""
    rows = [line.split("|") for line in answer.splitlines() if line.count("|") == 2]
    return [
        QueuedJob(job_id, state.split()[0].rstrip("+"), nodes=nodes.replace("None assigned", ""))
        for name, state, nodes in rows
        if state.split()
        for job_id in _ids(name)
    ]


def _ids(name: str) -> list[str]:
    """Return ``18_0, 18_1, 18_4`` of ``18_[0-1,4%2]``: tasks of an array that never started have one line. **Pure.**"""
    match = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", name)
    if match is None:
        return [name]
    array, spans = match.groups()
    return [f"{array}_{task}" for task in job_array.numbers(spans)]
