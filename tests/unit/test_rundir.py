"""The run directory is one run's, and nothing foreign in it is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
from ringtune.train import rundir
from ringtune.train.contract import UsageError, as_usage, holds_run, read_records
from ringtune.train.journal import MetricsFile


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds thesis.tex and no config.yaml"):
        holds_run(tmp_path)


def test_clearing_removes_what_is_ours_and_nothing_else(tmp_path):
    for name in ("config.yaml", "metrics.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoint-1").mkdir()
    rundir.clear(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_in_a_folder_is_refused_naming_the_first_which_may_die_by_sigkill(tmp_path):
    code = (
        f"from ringtune.train.rundir import *; lock = RunLock(Path({str(tmp_path)!r})); lock.acquire(); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"a run is alive in it: host .*, pid {holder.pid}"):
            rundir.RunLock(tmp_path).acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    lock = rundir.RunLock(tmp_path)
    lock.acquire()
    lock.release()


def test_metrics_are_cut_back_to_the_checkpoint_without_the_evaluation_after_it(tmp_path):
    log = MetricsFile(tmp_path / "metrics.jsonl")
    for event, step in (("train", 1), ("train", 2), ("eval", 2), ("train", 3)):
        log.write({"event": event, "step": step})
    with log.path.open("a") as stream:
        stream.write('{"event": "tra\n3\n[]\n')  # torn by a crash, and what is no record
    with log.path.open("ab") as stream:
        stream.write(b"\xff\xfe")
    log.truncate_after(2)
    assert [(each["event"], each["step"]) for each in read_records(log.path)] == [("train", 1), ("train", 2)]


def test_a_disk_that_the_user_can_fix_is_a_usage_error_and_any_other_error_stays_itself(tmp_path):
    with pytest.raises(OSError) as caught:
        tmp_path.write_text("")
    assert str(as_usage(caught.value)) == (
        f"{tmp_path}: Is a directory; free space, and permission to write there; run again when that is fixed"
    )
    with pytest.raises(OSError) as caught:
        (tmp_path / ("x" * 300)).exists()
    assert "File name too long" in str(as_usage(caught.value)) and isinstance(as_usage(caught.value), UsageError)
    for other in (
        OSError(errno.EIO, "Input/output error"),
        ConnectionResetError(),
        ValueError("x"),
        UsageError("a", "b"),
    ):
        assert as_usage(other) is other
