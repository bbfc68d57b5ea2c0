"""A terminal that is closed asks a job to stop; nohup keeps it from doing so."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from shell_job import start

#: Saves when it is asked to stop.
SAVES = (
    'exec 2>&-; trap "echo saved; touch %(folder)s/saved-$RANK; exit 75" TERM; trap "exit 1" HUP; '
    'trap "exit 75" USR1; echo ready; %(then)s'
)
FOREVER = "while :; do sleep 0.1; done"
UNTIL_END = "until [ -e %s/end ]; do sleep 0.1; done; echo ended"


def hear(process: subprocess.Popen[str]) -> None:
    """Wait until both ranks run."""
    assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]


def test_a_hang_up_is_one_request_to_stop_however_often_it_comes(tmp_path):
    process = start(SAVES % {"folder": tmp_path, "then": FOREVER})
    hear(process)
    for _ in range(3):  # of the shell, of the kernel to the shell's group
        process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, sorted(output.splitlines())) == (75, ["[0] saved", "[1] saved"])


def test_a_hang_up_is_named_where_the_ranks_do_not_save():
    process = start(f"echo ready; {FOREVER}")
    hear(process)
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (128 + signal.SIGHUP, "ringtune-launch: stopped by SIGHUP\n")


def test_a_job_under_nohup_goes_on(tmp_path):
    process = start(SAVES % {"folder": tmp_path, "then": UNTIL_END % tmp_path}, hang_up=signal.SIG_IGN)
    hear(process)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "end").touch()
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, sorted(output.splitlines())) == (0, ["[0] ended", "[1] ended"])


def test_a_warning_of_the_batch_step_is_heard(tmp_path):
    process = start(SAVES % {"folder": tmp_path, "then": FOREVER})
    hear(process)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=30) == ("", None) and process.returncode == 75


@pytest.mark.parametrize("hang_up", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_is_gone_is_no_failure_of_the_job(tmp_path, hang_up):
    """Whether the job is asked to stop by it or not, printing fails from then on."""
    ours, theirs = pty.openpty()
    program = SAVES % {"folder": tmp_path, "then": UNTIL_END % tmp_path}
    process = start(program, hang_up=hang_up, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    heard = b""
    while heard.count(b"ready") < 2:
        heard += os.read(ours, 1000)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # this terminal controls no process
    if hang_up == signal.SIG_IGN:
        (tmp_path / "end").touch()
    assert process.wait(30) == (0 if hang_up == signal.SIG_IGN else 75)
    saved = sorted(each.name for each in Path(tmp_path).glob("saved-*"))
    assert saved == ([] if hang_up == signal.SIG_IGN else ["saved-0", "saved-1"])
