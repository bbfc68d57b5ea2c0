"""Where nobody reads what the launcher prints, the job goes on, and nothing of it is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from ringtune.launch.job import VERDICT_FILE
from shell_job import start

NUM_LINES = 20_000
CODE = f"""
import sys
from ringtune.launch import printer
printer.MOST_WAITING = int(sys.argv[1])
mine = printer.Printer()
for number in range({NUM_LINES}):
    mine.print(f"line {{number}} of many", sys.stdout)
print("went on", file=sys.stderr, flush=True)
mine.close()
mine.print("the end", sys.stdout)
"""
WHOLE = "".join(f"line {number} of many\n" for number in range(NUM_LINES)) + "the end\n"


def printing(most_waiting: int) -> subprocess.Popen[str]:
    """Start a process that prints more than a pipe holds."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(most_waiting)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.timeout(30)
def test_whoever_prints_does_not_wait_for_a_reader_and_the_reader_gets_all_in_order():
    process = printing(1 << 26)
    assert process.stderr.readline() == "went on\n"
    assert process.communicate(timeout=20) == (WHOLE, "")


def test_a_reader_that_is_behind_by_too_much_is_waited_for():
    assert printing(1000).communicate(timeout=20) == (WHOLE, "went on\n")


@pytest.mark.parametrize("most_waiting", [1000, 1 << 26])
def test_that_the_reader_has_gone_is_told_to_whoever_prints(most_waiting):
    process = printing(most_waiting)
    process.stdout.close()
    assert process.wait(20) and "BrokenPipeError" in process.stderr.read()
    process.stderr.close()


def test_the_verdict_is_kept_before_a_reader_is_waited_for_and_a_signal_ends_the_wait(tmp_path):
    process = start("seq -f %090g 20000", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / VERDICT_FILE).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads((tmp_path / VERDICT_FILE).read_text())["exit_code"] == 0
    time.sleep(0.5)
    assert process.poll() is None  # it waits for a reader
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()


@pytest.mark.long
def test_ranks_outlive_a_reader_that_stands_still():
    """They send more than a pipe holds, and what a supervisor takes for the launcher's end is less than the wait."""
    process = start("seq -f %090g 20000; sleep 25; echo ended")
    time.sleep(22)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output[-1000:]
    for rank in range(2):
        lines = [line for line in output.splitlines() if line.startswith(f"[{rank}] ")]
        assert len(lines) == 20_001 and lines[-1] == f"[{rank}] ended"
        assert [int(line.split()[1]) for line in lines[:-1]] == list(range(1, 20_001))
