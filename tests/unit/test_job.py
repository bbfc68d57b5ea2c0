"""The life of a job whose launcher starts nothing; with real launchers, see tests/cluster."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from ringtune.launch.job import Job
from ringtune.launch.plan import Command, LaunchPlan, Timeouts
from ringtune.launch.hosts import Host
from ringtune.launch.ranks import assign
plan = LaunchPlan(tuple(assign([Host("localhost", 2)], 2)), "here", "mpirun", "mpi", ("true",), {}, is_local=True)
job = Job(plan, Command(("/bin/sh", "-c", "exit 3")), "127.0.0.1", timeouts=Timeouts(), bound=False, output_dir=None)
original = job._is_running
job._is_running = lambda now: bool(job.launcher._process.wait()) and original(now)  # looked at when it is over already
sys.exit(job.run())
"""


def test_a_launcher_that_is_over_before_it_is_looked_at_is_a_failure():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "never started; mpirun ended with code 3" in done.stderr
