"""The rules of ringtune-slurm after the start of a job: decisions, counts, states. No SLURM needed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ringtune.slurm import accounting, queue, record, status
from ringtune.slurm.decide import JobEnd, decide, exclude, one_time_flags
from ringtune.slurm.record import History
from ringtune.slurm.script import RetryLimits

# Decisions

STOPPED = JobEnd(75, "stopped by SIGUSR1 with a checkpoint")
CRASHED = JobEnd(1, "rank 1 of 2 (host n2): exit code 1", "RuntimeError: x")


@pytest.mark.parametrize(
    ("outcome", "idle", "requeues", "expected"),
    [
        (JobEnd(0, "finished"), 5, 500, "finished"),
        (STOPPED, 0, 0, "requeue"),
        (STOPPED, 1, 99, "requeue"),
        (STOPPED, 2, 0, "stop"),
        (STOPPED, 0, 100, "stop"),
        (CRASHED, 1, 0, "requeue"),
        (CRASHED, 2, 0, "stop"),
        (JobEnd(2, "wrong usage"), 1, 0, "stop"),
        (JobEnd(2, "doctor", bad_nodes=("n2",)), 1, 0, "requeue"),
        (JobEnd(2, "doctor", bad_nodes=("n1", "n2")), 1, 0, "stop"),
    ],
    ids=str,
)
def test_what_follows_an_end(outcome, idle, requeues, expected):
    assert decide(outcome, idle, requeues, 2, RetryLimits(max_requeues=100, max_tries=2)).what == expected


@pytest.mark.parametrize(
    ("config", "is_signed", "has_checkpoint", "overwrites", "source"),
    [
        ({}, False, False, "false", "null"),
        ({"overwrite_output_dir": True}, False, True, "true", "null"),
        ({"overwrite_output_dir": True}, True, True, "false", "null"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, False, False, "false", "/other/checkpoint-4"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, True, False, "false", "/other/checkpoint-4"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, True, True, "false", "null"),
        ({"resume_from_checkpoint": "latest"}, False, True, "false", "latest"),
        ({"resume_from_checkpoint": "latest"}, True, True, "false", "null"),
    ],
)
def test_only_the_first_start_overwrites_or_begins_elsewhere(config, is_signed, has_checkpoint, overwrites, source):
    found = one_time_flags(config, is_signed=is_signed, has_checkpoint=has_checkpoint)
    assert found == ["--overwrite_output_dir", overwrites, "--resume_from_checkpoint", source]


def test_a_batch_step_outside_a_job_says_so():
    done = subprocess.run(
        [sys.executable, "-m", "ringtune.slurm.batch", "--output-dir=x", "--script=y"],
        capture_output=True,
        text=True,
        check=False,
        input="a: b",
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2 and "batch step: it runs in no SLURM job" in done.stderr, done.stderr


def test_nodes_to_leave_out_are_added_once():
    assert exclude("n1,n2", ("n2", "n3")) == "n1,n2,n3"
    assert exclude("", ("n2",)) == "n2"
    assert exclude("gpu[01,03],cpu[02,03]", ("n2", "gpu01")) == "gpu[01,03],cpu[02,03],n2,gpu01"
    assert exclude("n[1-2]x[3,4],n7", ("n7",)) == "n[1-2]x[3,4],n7"


def ended(step: int, started: int, decision: str = "requeue") -> dict:
    return {"event": "ended", "step": step, "started_at_step": started, "decision": decision}


def started(job_id: str = "1") -> dict:
    return {"event": "started", "job_id": job_id, "nodes": ["n1"], "time": 0.0}


def test_counts_begin_with_the_latest_submission_and_pass_over_what_slurm_decided():
    events = [
        {"event": "submitted"},
        started("1"),
        ended(0, 0),
        {"event": "submitted"},
        started("2"),
        ended(4, 0),
        started("2"),
        ended(4, 4),
        started("2"),
        ended(4, 4, "slurm"),
        started("2"),
        ended(4, 4),
    ]
    history = History.of(events)
    assert (history.job_id, history.num_requeues, history.num_idle_tries) == ("2", 3, 2)
    assert History.of(events[:4]).job_id == "" and History.of([]).num_requeues == 0


def test_a_torn_last_event_is_not_read(tmp_path):
    mine = record.Record(tmp_path)
    mine.add(record.SUBMITTED)
    with (mine.folder / record.EVENTS_FILE).open("a") as stream:
        stream.write('{"event": "sta')
    assert [each["event"] for each in mine.events()] == ["submitted"]
    mine.add(record.STARTED)
    assert [each["event"] for each in mine.events()] == ["submitted", "started"]


# What SLURM says


def test_the_columns_of_squeue_are_read_with_every_kind_of_emptiness():
    widths = [width for _, width in queue._COLUMNS]
    cells = (
        ("18_3", "PENDING", "0", "Resources", ""),
        ("17", "RUNNING", "2", "None", "n[1-2]"),
    )
    lines = "\n".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    first, second = queue.parse(lines + "\n\n")
    assert first == queue.QueuedJob("18_3", "PENDING", 0, "Resources", "") and first.is_active
    assert (second.restarts, second.nodes, second.reason) == (2, "n[1-2]", "")


def test_slurm_is_asked_without_the_variables_of_the_job_that_asks():
    job = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "1000", "SLURMD_NODENAME": "n1", "SLURM_NTASKS": "4"}
    own = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "nlp"}
    assert queue.outside_a_job({**job, **own}) == own


def test_the_tasks_of_a_large_array_are_asked_for_as_one(monkeypatch):
    asked = []

    def answer(command, **options):
        asked.append(command)
        if command[0] == "squeue":
            return f"{'7_3':40}{'RUNNING':20}\n{'7_999':40}{'PENDING':20}\n"
        ended = "7_[4-6]|CANCELLED by 0|None assigned\n9_1|FAILED|n1\n9_2|FAILED|\n"
        return f"{ended}8|RUNNING|n1\n"

    monkeypatch.setattr(queue, "run", answer)
    monkeypatch.setattr(accounting, "run", answer)
    ids = [f"7_{task}" for task in range(900)]
    assert list(queue.jobs([*ids, "8", "9_1"])) == ["7_3"]
    # 8 has left the queue: whatever the accounting says, it does not run any more.
    assert sorted(accounting.ended([*ids, "8", "9_1"])) == ["7_4", "7_5", "7_6", "9_1"]
    assert [next(word for word in command if "7" in word) for command in asked] == ["--jobs=7,8,9_1", "7,8,9"]


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (queue.SlurmError("Slurm accounting storage is disabled"), False),
        (queue.NotHere("sacct is not on this machine"), False),
        (queue.NoAnswer("sacct did not answer in 15 s"), True),
        (queue.SlurmError("Access denied"), True),
    ],
)
def test_no_accounting_is_told_from_one_that_gives_no_answer(monkeypatch, error, silent):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(accounting, "run", refuse)
    if silent:
        with pytest.raises(accounting.Silent, match=str(error)):
            accounting.ended(["7"])
    else:
        assert accounting.ended(["7"]) == {}


def test_a_job_that_has_ended_before_it_was_noted_as_queued_has_failed():
    ended = {"event": "ended", "job_id": "7", "decision": "stop"}
    history = History.of([SENT, {"event": "started", "job_id": "7"}, ended, QUEUED])
    assert status.judge(history, None, slurm_answers=True, finished=False, idle_s=0, stalled_after_s=9) == "FAILED"


def test_the_lines_of_sacct_are_read():
    answer = "17|CANCELLED by 0|n1\n18_3|NODE_FAIL|None assigned\n19|\n\n20||y\n"
    assert [(each.job_id, each.state, each.nodes) for each in accounting.parse(answer)] == [
        ("17", "CANCELLED", "n1"),
        ("18_3", "NODE_FAIL", ""),
    ]


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("[0-3]", "0 1 2 3"), ("[1,5-6%2]", "1 5 6"), ("[2-9:3]", "2 5 8"), ("4", "4"), ("[0-3", "[0-3")],
)
def test_tasks_that_never_started_share_a_line_of_sacct(name, tasks):
    found = accounting.parse(f"7_{name}|CANCELLED by 0|None assigned\n")
    assert [each.job_id for each in found] == [f"7_{task}" for task in tasks.split()]


QUEUED = {"event": "queued", "job_id": "7"}
SENT = {"event": "submitted"}


@pytest.mark.parametrize(
    ("events", "slurm", "finished", "idle_s", "expected"),
    [
        ([SENT, QUEUED], "RUNNING", False, 10, "RUNNING"),
        ([SENT, QUEUED], "RUNNING", False, 601, "STALLED"),
        ([SENT, QUEUED], "PENDING", False, 601, "PENDING"),
        ([SENT, QUEUED], "CANCELLED", False, 0, "CANCELLED"),
        ([SENT, QUEUED], None, True, 0, "COMPLETED"),
        ([SENT, QUEUED, started()], None, False, 0, "LOST"),
        ([SENT, QUEUED, started(), ended(0, 0, "stop")], None, False, 0, "FAILED"),
        ([SENT, QUEUED, {"event": "cancelled"}], None, False, 0, "CANCELLED"),
        ([SENT, QUEUED, started(), {"event": "cancelled"}, ended(4, 0, "slurm")], None, False, 0, "CANCELLED"),
        ([SENT, QUEUED, started(), {"event": "cancelled"}, ended(4, 0, "stop")], None, False, 0, "CANCELLED"),
        ([SENT, QUEUED, started(), {"event": "cancelled"}, ended(4, 0, "slurm")], "no answer", False, 0, "CANCELLED"),
        ([SENT, QUEUED, started(), {"event": "cancelled"}, ended(4, 0), started()], None, False, 0, "LOST"),
        ([SENT, QUEUED, {"event": "cancelled"}, SENT, QUEUED], "no answer", False, 0, "PENDING"),
        ([SENT, {"event": "refused"}], None, False, 0, "NOT SUBMITTED"),
        ([SENT, QUEUED], "no answer", False, 0, "PENDING"),
        ([SENT, QUEUED, started()], "no answer", False, 0, "RUNNING"),
        ([SENT, QUEUED, started()], "no answer", False, 999, "STALLED"),
        ([SENT, QUEUED, started(), ended(4, 0)], "no answer", False, 0, "PENDING"),
        ([], "no answer", False, 0, "NOT SUBMITTED"),
    ],
)
def test_one_word_says_how_a_run_is(events, slurm, finished, idle_s, expected):
    job = queue.QueuedJob("7", slurm) if slurm not in (None, "no answer") else None
    found = status.judge(
        History.of(events),
        job,
        slurm_answers=slurm != "no answer",
        finished=finished,
        idle_s=idle_s,
        stalled_after_s=600,
    )
    assert found == expected
