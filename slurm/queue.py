"""What SLURM answers and does: sbatch, squeue, scontrol and scancel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringtune.launch import slurm_job
from ringtune.train.contract import UsageError

ANSWER_LIMIT_S = 60
FEW_TASKS = 50  # of an array, which are asked for one by one
#: What SLURM's commands read of a user's environment. All other variables of SLURM's are those of a job that this runs
#: in: sbatch would hand its memory, nodes and tasks on to the new one, which then asks for two things at once.
OWN_SETTINGS = (
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_CLUSTERS",
    "SLURM_JWT",
    "SLURM_DEBUG_FLAGS",
    "SLURM_TIME_FORMAT",
)
ACTIVE = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
)
#: Columns of squeue and their widths; the last one takes what is left.
_COLUMNS = (
    ("JobArrayID", 40),
    ("State", 20),
    ("RestartCnt", 8),
    ("Reason", 64),
    ("NodeList", 4096),
)
_UNKNOWN = "Invalid job id"


class SlurmError(Exception):
    """SLURM did not do as asked; the text is its own words."""


class NoAnswer(SlurmError):
    """SLURM cannot be asked now: no client here, or no controller that answers."""


class NotHere(NoAnswer):
    """The command is not on this machine."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as SLURM sees it."""

    job_id: str  # as users name it: 17, or 18_3 for a task of an array
    state: str  # SLURM's own word, such as RUNNING
    restarts: int = 0
    reason: str = ""
    nodes: str = ""

    @property
    def is_active(self) -> bool:
        """Whether something may still come of it."""
        return self.state in ACTIVE


def require(name: str) -> None:
    """Raise UsageError if one of SLURM's commands is not here."""
    if shutil.which(name) is None:
        raise UsageError(
            name,
            "it is not on this machine",
            legal="a login node of a SLURM cluster",
            todo="go there, or use ringtune-slurm script and submit by hand",
        )


def test(script: str, words: Sequence[str] = ()) -> None:
    """Ask whether the cluster could ever run a script. Raises SlurmError with sbatch's own words if it could not.

    sbatch itself takes a job of more nodes than there are, and lets it wait for ever, where the site has not forbidden
    it.
    """
    run(["sbatch", "--test-only", *words, script], patience_s=0)


def submit(script: str, words: Sequence[str] = ()) -> str:
    """Submit a script and return the job's id. Raises SlurmError with sbatch's own words."""
    answer = run(["sbatch", "--parsable", *words, script], patience_s=0)
    return answer.strip().splitlines()[-1].split(";")[0]


def jobs(ids: Sequence[str]) -> dict[str, QueuedJob]:
    """Return the jobs of these ids that slurmctld still knows: all that may go on, and for a while those that have
    ended. Raises NoAnswer."""
    if not ids:
        return {}
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS)
    try:
        asked = ",".join(_asked_for(ids))
        answer = run(["squeue", "--noheader", "--array", "--states=all", f"--jobs={asked}", "-O", columns])
    except NoAnswer:
        raise
    except SlurmError as error:
        if _UNKNOWN not in str(error):
            raise NoAnswer(str(error)) from None
        answer = ""
    wanted = set(ids)
    return {job.job_id: job for job in parse(answer) if job.job_id in wanted}


def parse(answer: str) -> list[QueuedJob]:
    """Return the jobs of squeue's columns. **Pure.**"""
    result = []
    for line in answer.splitlines():
        fields, position = [], 0
        for _, width in _COLUMNS:
            fields.append(line[position : position + width].strip())
            position += width
        job_id, state, restarts, reason, nodes = fields
        if job_id:
            result.append(
                QueuedJob(
                    job_id,
                    state,
                    int(restarts or 0),
                    *("" if each in ("N/A", "None", "(null)") else each for each in (reason, nodes)),
                )
            )
    return result


def _asked_for(ids: Sequence[str]) -> list[str]:
    """Return ids to ask for, of an array with many tasks its own: a command line has room for so many. **Pure.**"""
    arrays: dict[str, list[str]] = {}
    for each in ids:
        arrays.setdefault(each.partition("_")[0], []).append(each)
    return [each for array, tasks in arrays.items() for each in ([array] if len(tasks) > FEW_TASKS else tasks)]


def requeue(job_id: str) -> None:
    """Send a running job back into the queue. Raises SlurmError where the cluster forbids it."""
    run(["scontrol", "requeue", job_id])


def leave_out(job_id: str, nodes: str) -> None:
    """Let a pending job avoid nodes. Raises SlurmError."""
    run(["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={nodes}"], patience_s=0)


def release(job_id: str) -> None:
    """Let a held job start. Raises SlurmError."""
    run(["scontrol", "release", job_id], patience_s=0)


def excluded(job_id: str) -> str:
    """Return the nodes that a job avoids already. Raises SlurmError."""
    match = re.search(r"\bExcNodeList=(\S+)", run(["scontrol", "show", "job", job_id]))
    return "" if match is None or match[1] == "(null)" else match[1]


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs. Raises SlurmError."""
    run(["scancel", *ids])


def outside_a_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of the job that it is of. **Pure.**"""
    return {name: value for name, value in environ.items() if not name.startswith("SLURM") or name in OWN_SETTINGS}


def own_id(environ: Mapping[str, str] = os.environ) -> str:
    """Return the id of the job this runs in, as users name it. **Pure.** Raises UsageError outside a job."""
    if "SLURM_JOB_ID" not in environ:
        raise UsageError(
            "batch step",
            "it runs in no SLURM job",
            legal="sbatch SCRIPT",
            todo="submit the script; see ringtune-slurm --help",
        )
    return slurm_job.own_id(environ)


def run(
    command: Sequence[str],
    *,
    patience_s: float = 5.0,
    limit_s: float = ANSWER_LIMIT_S,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Return what a command prints. Raises SlurmError with its words, NoAnswer while nobody answers.

    patience_s: how long it is tried again; 0: once. limit_s: of one try. environment: more variables.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**outside_a_job(os.environ), **(environment or {})},
            )
        except FileNotFoundError:
            raise NotHere(f"{command[0]} is not on this machine") from None
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"{command[0]} did not answer in {limit_s:g} s") from None
        if done.returncode == 0:
            return done.stdout
        words = " ".join(done.stderr.split())
        if not slurm_job.AWAY.search(words):
            raise SlurmError(words)
        if time.monotonic() >= deadline:
            raise NoAnswer(words)
        time.sleep(1.0)
