"""The batch step: ``python -m ringtune.slurm.batch``, what a batch script becomes on the first node of its job.

*Record the start → examine the nodes → run the ranks → record the end → requeue or stop.* The configuration comes on
standard input, from the script itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ringtune.launch import doctor, findings, slurm_job
from ringtune.launch.run import LaunchRequest
from ringtune.slurm import array_task, index, queue, requeue
from ringtune.slurm import record as records
from ringtune.slurm.decide import REQUEUE, SLURM, STOP, Decision, JobEnd, decide, one_time_flags
from ringtune.slurm.ranks import ranks_command
from ringtune.slurm.record import History, Record
from ringtune.slurm.script import RetryLimits
from ringtune.train import search, sweep
from ringtune.train.contract import (
    CONFIG_FILE,
    EXIT_FINISHED,
    EXIT_PRUNED,
    EXIT_REQUEUE,
    EXIT_USAGE,
    LOCK_FILE,
    SLURM_DIR,
    VERDICT_FILE,
    UsageError,
)

#: What doctor may find that no run survives; the rest (a slow link, a clock that is off) is only reported.
FATAL_CHECKS = ("reachable", "software", "GPUs", "shared")
LOCK_PATIENCE_S = 60  # for the last of an earlier start, on a node that SLURM gave up, to be gone
REMIND_EVERY_S = 5.0  # how often the ranks are asked again to stop


def main(argv: Sequence[str] | None = None) -> None:
    """Run the batch step and leave with the exit code of the run."""
    options = _parser().parse_args(argv)
    try:
        code = BatchStep(options, sys.stdin.read()).run()
    except UsageError as error:
        print(f"ringtune-slurm: {error}", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ringtune.slurm.batch", description=__doc__, allow_abbrev=False)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--launcher", default="srun")
    parser.add_argument("--controller")
    parser.add_argument("--max-requeues", type=int, default=RetryLimits.max_requeues)
    parser.add_argument("--max-tries", type=int, default=RetryLimits.max_tries)
    parser.add_argument("--no-doctor", action="store_true")
    parser.add_argument("--carry", action="append", default=[])
    parser.add_argument("--container", action="append", default=[])
    parser.add_argument("--sweep", action="append", default=[])
    search.add_to(parser)
    parser.add_argument("--script", required=True)
    return parser


class BatchStep:
    """One start of one run's job."""

    def __init__(self, options: argparse.Namespace, config: str) -> None:
        self.options, self.config = options, config
        self.job_id = queue.own_id()
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.nodes = slurm_job.node_names(os.environ)
        self.settings = array_task.settings_of(options)
        self.record = Record(options.output_dir / sweep.folder_name(self.settings))
        self.limits = RetryLimits(options.max_requeues, options.max_tries)
        self.asked = ""  # the signal that asked for a stop
        self.ranks: subprocess.Popen[bytes] | None = None

    # The life of a start

    def run(self) -> int:
        """Take the run as far as this start can, and see to it that it goes on."""
        self._listen()
        self._record_start()
        try:
            end = self._examine() or self._train()
        except UsageError as error:  # of the job itself: it is recorded like every other end
            end = JobEnd(EXIT_REQUEUE if self.asked else EXIT_USAGE, str(error))
        decision = self._decide(end)
        self._record_end(end, decision)
        array_task.settle(self.options)
        if decision.what == REQUEUE:
            self._requeue(end.bad_nodes)
        return end.exit_code

    def _listen(self) -> None:
        """SIGUSR1 is sbatch's warning before the time is up; SIGTERM comes when SLURM ends the job."""
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or signal.Signals(number).name
        self._pass_on()

    def _pass_on(self) -> None:
        """Ask the ranks to stop. Always by SIGUSR1: where SLURM signals the whole job at once, the launcher has had its
        SIGTERM already, and a second one means "stop at once" to it."""
        if self.ranks is not None:
            self.ranks.send_signal(signal.SIGUSR1)

    def _record_start(self) -> None:
        events = self.record.events()
        if not any(each.get("job_id") == self.job_id for each in events) and not self._is_expected(events):
            self.record.add(records.SUBMITTED, by_hand=True, previous=self.record.signature())
            self.record.add(records.QUEUED, job_id=self.job_id, log=self._log(self.job_id))
        self.step = self.record.saved_step()
        before = History.of(events).last(records.STARTED, records.ENDED)
        if before is not None and before["event"] == records.STARTED:
            # Its batch step was gone before it could write this record.
            self.record.add(
                records.ENDED,
                job_id=before["job_id"],
                restart=before["restart"],
                exit_code=None,
                decision=SLURM,
                reason="ended without a record: its node was lost, or SLURM killed it",
                last_line="",
                bad_nodes=[],
                started_at_step=before["step"],
                step=self.step,
            )
        self.record.add(records.STARTED, job_id=self.job_id, restart=self.restart, nodes=self.nodes, step=self.step)
        index.remember({self.job_id: self.record.run})
        print(
            f"ringtune-slurm: job {self.job_id}, start {self.restart + 1}, on {','.join(self.nodes)}, "
            f"from step {self.step}, run directory {self.record.run}",
            flush=True,
        )

    def _log(self, job_id: str) -> str:
        """Return where the script sends a job's log, unless sbatch was given another by hand."""
        return str(self.options.output_dir / SLURM_DIR / f"{job_id}.log")

    def _is_expected(self, events: Sequence[records.Event]) -> bool:
        """Return whether a submission waits for its job: sbatch may start it before its id could be recorded."""
        return bool(events) and events[-1]["event"] == records.SUBMITTED

    # The nodes

    def _examine(self) -> JobEnd | None:
        """Look at every node; return why the ranks should not start, None if they should."""
        if self.options.no_doctor:
            return None
        request = LaunchRequest((), launcher="auto")
        found, measured = doctor.look(request, [self.record.folder], quick=True)
        print(findings.findings_table(found, measured, colours=False), flush=True)
        fatal = [each for each in found if each.state == findings.BAD and each.check in FATAL_CHECKS]
        if self.asked:
            return JobEnd(EXIT_REQUEUE, f"stopped by {self.asked} before the ranks had started")
        if not fatal:
            return None
        bad = tuple(dict.fromkeys(each.where for each in fatal))
        return JobEnd(EXIT_USAGE, "doctor: " + "; ".join(f"{each.where}: {each.fact}" for each in fatal), bad_nodes=bad)

    # The ranks

    def _train(self) -> JobEnd:
        """Run the ranks to their end and return how that was."""
        self._wait_for_lock()
        config = self.record.folder / CONFIG_FILE
        config.write_text(self.config, encoding="utf-8")
        logs = self.record.folder / "ranks" / f"{self.job_id}.{self.restart}"
        words = [
            *("--config", str(config)),
            *array_task.flags_of(self.options, self.settings, self.config),
            *("--output_dir", str(self.record.run)),
            *self._one_time_flags(config),
        ]
        command = ranks_command(self.options, logs, words)
        self.ranks = subprocess.Popen(command, preexec_fn=_ignore_warning)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._end_of(self.ranks.wait(REMIND_EVERY_S), logs)
            if self.asked:  # perhaps before the launcher handled signals
                self._pass_on()

    def _wait_for_lock(self) -> None:
        """Wait until no earlier start is alive in the run directory; ringtune-train reports one that does not end."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.record.run / LOCK_FILE, timeout=LOCK_PATIENCE_S):
                return
        except Timeout:
            return

    def _one_time_flags(self, config: Path) -> list[str]:
        """Return the flags that belong to the submission, not to every start of its job."""
        import yaml

        submitted = History.of(self.record.events()).last(records.SUBMITTED)
        is_signed = submitted is not None and self.record.signature() != submitted.get("previous")
        return one_time_flags(
            yaml.safe_load(config.read_text(encoding="utf-8")),
            is_signed=is_signed,
            has_checkpoint=self.record.checkpoint() is not None,
        )

    def _end_of(self, code: int, logs: Path) -> JobEnd:
        verdict = self._verdict(logs)
        code = code if code >= 0 else 128 - code
        if code == EXIT_FINISHED:
            return JobEnd(code, "finished")
        if code == EXIT_PRUNED:
            return JobEnd(EXIT_FINISHED, "pruned: other trials do better")
        if code == EXIT_REQUEUE:
            return JobEnd(code, f"stopped by {self.asked or 'a signal to the ranks'} with a checkpoint")
        if self.asked and code in (128 + signal.SIGUSR1, 128 + signal.SIGTERM):
            return JobEnd(EXIT_REQUEUE, f"stopped by {self.asked} before the ranks had started")
        reason = verdict.get("headline") or f"the launcher ended with code {code}"
        lost = tuple(verdict.get("lost_hosts", ()))
        # Where every host is lost, this one too, it was the job step that died and no node.
        return JobEnd(code, reason, verdict.get("last_line", ""), lost if len(lost) < len(self.nodes) else ())

    def _verdict(self, logs: Path) -> dict[str, Any]:
        """Return the launcher's verdict on the end, {} if it left none."""
        try:
            return dict(json.loads((logs / VERDICT_FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    # The end

    def _requeue(self, bad_nodes: Sequence[str]) -> None:
        array_task = os.environ["SLURM_ARRAY_TASK_ID"] if self.settings else ""
        job = requeue.RunningJob(self.job_id, self.record, self.options.script, self._log, array_task)
        requeue.run_again(job, bad_nodes)

    def _decide(self, end: JobEnd) -> Decision:
        if end.exit_code != EXIT_FINISHED:
            try:
                found = self._own_job()
            except queue.NoAnswer as error:
                return Decision(
                    STOP, f"{end.reason}; SLURM does not answer ({error}): ringtune-slurm resume when it does"
                )
            if found is None or found.state != "RUNNING" or found.restarts != self.restart:
                state = f"{found.state} {found.reason}".strip() if found else "gone"
                return Decision(SLURM, f"{end.reason}; SLURM ended the job: it is {state}")
        history = History.of(self.record.events())
        idle = 0 if self.record.saved_step() > self.step else 1 + history.num_idle_tries
        return decide(end, idle, history.num_requeues, len(self.nodes), self.limits)

    def _own_job(self) -> queue.QueuedJob | None:
        """Return this job as SLURM sees it; waits for a controller that is away for a while."""
        deadline = time.monotonic() + slurm_job.CONTROLLER_PATIENCE_S
        while True:
            try:
                return queue.jobs([self.job_id]).get(self.job_id)
            except queue.NoAnswer:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2.0)

    def _record_end(self, end: JobEnd, decision: Decision) -> None:
        self.record.add(
            records.ENDED,
            job_id=self.job_id,
            restart=self.restart,
            exit_code=end.exit_code,
            decision=decision.what,
            reason=decision.reason,
            last_line=end.last_line,
            bad_nodes=end.bad_nodes,
            started_at_step=self.step,
            step=self.record.saved_step(),
        )
        what = {REQUEUE: "requeue", STOP: "stop", SLURM: "left to SLURM"}.get(decision.what, decision.what)
        print(f"ringtune-slurm: {what}: {decision.reason}", flush=True)


def _ignore_warning() -> None:
    """In the new process: let a warning that comes before it listens do no harm."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


if __name__ == "__main__":
    main()
