"""How a run is doing: what SLURM knows of its job, together with what its directory records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.slurm import accounting, queue
from ringtune.slurm import record as records
from ringtune.slurm.decide import REQUEUE, STOP
from ringtune.slurm.queue import QueuedJob
from ringtune.slurm.record import History, Record
from ringtune.train import space, trial
from ringtune.train.contract import UsageError

STALLED_AFTER_S = 600.0
COMPLETED, FAILED, STALLED, LOST, UNSENT = "COMPLETED", "FAILED", "STALLED", "LOST", "NOT SUBMITTED"


@dataclass(frozen=True)
class Status:
    """One run and its job; None and "" where nothing is known."""

    run: str
    job_id: str
    state: str  # SLURM's word, or STALLED, LOST, NOT SUBMITTED
    is_over: bool
    nodes: str
    step: int
    total_steps: int | None
    epoch: float | None
    loss: float | None  # of the latest logged step
    best: float | None  # the score that decides
    samples_per_s: float | None
    eta_s: float | None
    requeues: int
    checkpoint_step: int | None
    checkpoint_age_s: float | None
    reason: str  # of the latest stop, or what it waits for
    last_line: str  # of the rank that failed last
    trial: str = ""  # settings of a trial of a search


def look(runs: Sequence[Path], *, stalled_after_s: float = STALLED_AFTER_S, now: float | None = None) -> list[Status]:
    """Return the status of every run; without an answer from SLURM as far as the run directories know."""
    found = [Record(run) for run in runs]
    histories = [History.of(record.events()) for record in found]
    answers = _ask([history.job_id for history in histories if history.job_id])
    now = time.time() if now is None else now
    return [
        _status(record, history, answers, stalled_after_s, now)
        for record, history in zip(found, histories, strict=True)
    ]


@dataclass(frozen=True)
class _Answers:
    """What SLURM says of jobs."""

    jobs: Mapping[str, QueuedJob]
    slurm_answers: bool = True
    silence: str = ""  # why nothing more is known of jobs that are not among them


def _ask(ids: Sequence[str]) -> _Answers:
    """Ask slurmctld for jobs, and the accounting for those that it has forgotten: two queries at most."""
    try:
        jobs = queue.jobs(ids)
    except queue.NoAnswer:
        return _Answers({}, slurm_answers=False, silence="SLURM does not answer")
    try:
        return _Answers({**accounting.ended(each for each in ids if each not in jobs), **jobs})
    except accounting.Silent as error:
        return _Answers(jobs, silence=f"the accounting does not answer ({error})")


def _status(record: Record, history: History, answers: _Answers, stalled_after_s: float, now: float) -> Status:
    job = answers.jobs.get(history.job_id)
    start = history.last(records.STARTED)
    started_at = float(start["time"]) if start else now
    finished = record.finished()
    state = judge(
        history,
        job,
        slurm_answers=answers.slurm_answers,
        finished=finished is not None,
        idle_s=now - max(record.progressed_at(), started_at),
        stalled_after_s=stalled_after_s,
    )
    metrics = record.metrics()
    train: Mapping[str, Any] = next((each for each in reversed(metrics) if each["event"] == "train"), {})
    checkpoint = record.checkpoint()
    is_over = state not in (*queue.ACTIVE, STALLED)
    step = int(train.get("step", 0)) if finished is None else int(finished["stopped_at"])
    step = max(step, checkpoint[0] if checkpoint else 0)
    ended = history.last(records.ENDED, records.REFUSED)
    return Status(
        run=str(record.run),
        job_id=history.job_id,
        state=state,
        is_over=is_over,
        nodes=(job.nodes if job else "") or ",".join(start["nodes"] if start else ()),
        step=step,
        total_steps=train.get("total_steps"),
        epoch=train.get("epoch"),
        loss=train.get("loss"),
        best=_best(metrics, finished),
        samples_per_s=train.get("samples_per_s"),
        eta_s=None if is_over else _eta_s(metrics, step),
        requeues=history.num_requeues,
        checkpoint_step=checkpoint[0] if checkpoint else None,
        checkpoint_age_s=now - checkpoint[1] if checkpoint else None,
        reason=_reason(history, job, answers.silence if job is None and history.job_id else ""),
        last_line=str(ended.get("last_line", "")) if ended else _last_logged(history) if is_over else "",
        trial=_trial(record.run),
    )


def _trial(run: Path) -> str:
    try:
        found = trial.read(run)
    except UsageError as error:
        return str(error)
    return space.shown(found.settings) if found is not None else ""


def judge(
    history: History,
    job: QueuedJob | None,
    *,
    slurm_answers: bool,
    finished: bool,
    idle_s: float,
    stalled_after_s: float,
) -> str:
    """Return one word for how a run is. **Pure.** Where SLURM knows nothing, the run directory's last word counts."""
    if job is not None:
        is_stalled = job.state == "RUNNING" and idle_s > stalled_after_s
        return STALLED if is_stalled else job.state
    if finished:
        return COMPLETED
    # The end that a cancelled job records, if its batch step has time for it, is no news: only a new job or start is.
    last = history.last(records.QUEUED, records.STARTED, records.CANCELLED)
    if last is not None and last["event"] == records.CANCELLED:
        return "CANCELLED"
    last = history.last(records.SUBMITTED, records.QUEUED, records.REFUSED, records.STARTED, records.ENDED)
    if last is None or last["event"] in (records.SUBMITTED, records.REFUSED):
        return UNSENT
    if last["event"] == records.ENDED and last["decision"] == STOP:
        return FAILED
    if slurm_answers:
        return LOST
    # Nobody to ask: what the run did last decides.
    if last["event"] == records.QUEUED or (last["event"] == records.ENDED and last["decision"] == REQUEUE):
        return "PENDING"
    return STALLED if idle_s > stalled_after_s else "RUNNING"


def _last_logged(history: History) -> str:
    """Return the last line of the log of a job that ended before its batch step could note anything."""
    queued = history.last(records.QUEUED)
    try:
        lines = Path(queued["log"]).read_text(errors="replace").splitlines() if queued else []
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reason(history: History, job: QueuedJob | None, silence: str) -> str:
    last = history.last(records.ENDED, records.REFUSED, records.CANCELLED)
    parts = []
    if job is not None and job.is_active and job.reason:
        parts.append(f"waits for {job.reason}" if job.state == "PENDING" else job.reason)
    if last is not None:
        parts.append(str(last.get("reason") or last.get("words") or last["event"]))
    if silence:
        parts.append(f"{silence}; this is what the run directory records")
    return "; ".join(parts)


def _best(metrics: Sequence[Mapping[str, Any]], finished: Mapping[str, Any] | None) -> float | None:
    if finished is not None:
        score = finished["best"]["score"]
        return None if score is None else float(score)
    best = [each["best"] for each in metrics if each["event"] == "eval" and each.get("best") is not None]
    return float(best[-1]) if best else None


def _eta_s(metrics: Sequence[Mapping[str, Any]], step: int) -> float | None:
    """Return the seconds that the steps left will take at the speed of the latest ten records."""
    needed = ("num_tokens", "tokens_per_s", "total_steps")  # a damaged line may lack one
    steps = [each for each in metrics if each["event"] == "train" and all(each.get(name) for name in needed)][-10:]
    seconds = [each["num_tokens"] / each["tokens_per_s"] for each in steps]
    return None if not steps else max(0, steps[-1]["total_steps"] - step) * sum(seconds) / len(seconds)


# For people


def status_table(found: Sequence[Status]) -> str:
    """Return one line a run, or for a single run one line a fact. **Pure.**"""
    if len(found) == 1:
        return _portrait(found[0])
    lines = [("run", "job", "state", "step", "loss", "best", "samples/s", "left", "requeues", "checkpoint", "")]
    lines += [
        (
            Path(each.run).name,
            each.job_id or "-",
            each.state,
            _progress(each),
            _number(each.loss),
            _number(each.best),
            _number(each.samples_per_s, 1),
            _span(each.eta_s),
            str(each.requeues),
            f"{each.checkpoint_step}, {_span(each.checkpoint_age_s)} old" if each.checkpoint_step is not None else "-",
            "; ".join(filter(None, (each.trial, each.last_line or each.reason))),
        )
        for each in found
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1][:60]]).rstrip()
        for line in lines
    )


def _portrait(each: Status) -> str:
    facts = {
        "run": each.run,
        "trial": each.trial,
        "job": f"{each.job_id or '-'}  {each.state}" + (f"  on {each.nodes}" if each.nodes else ""),
        "step": _progress(each) + (f", epoch {each.epoch:.2f}" if each.epoch is not None else ""),
        "loss": _number(each.loss),
        "best": _number(each.best),
        "speed": f"{_number(each.samples_per_s, 1)} samples/s, {_span(each.eta_s)} left",
        "requeues": str(each.requeues),
        "checkpoint": f"step {each.checkpoint_step}, {_span(each.checkpoint_age_s)} old"
        if each.checkpoint_step is not None
        else "none yet",
        "reason": each.reason,
        "last line": each.last_line,
    }
    return "\n".join(f"{name + ':':12} {value}" for name, value in facts.items() if value)


def _progress(each: Status) -> str:
    return f"{each.step}/{each.total_steps if each.total_steps is not None else '?'}"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _span(seconds: float | None) -> str:
    """Return a duration for people, such as 2h05m."""
    if seconds is None:
        return "-"
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{secs:02}s" if minutes else f"{secs}s"


def summary(found: Sequence[Status]) -> str:
    """Return one line on how many runs are in which state, with the steps of the only one. **Pure.**"""
    if len(found) == 1:
        return f"job {found[0].job_id}: {found[0].state}, step {_progress(found[0])}, {found[0].requeues} requeue(s)"
    counts = Counter(each.state for each in found)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
