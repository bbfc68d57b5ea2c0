"""A real job of two ranks that a shell starts in place of mpirun; the ranks run a program of the shell."""

from __future__ import annotations

import signal
import subprocess
import sys

CODE = """
import os, pathlib, sys
from ringtune.launch.job import Job
from ringtune.launch.plan import Command, LaunchPlan, Timeouts
from ringtune.launch.hosts import Host
from ringtune.launch.ranks import assign
slots = tuple(assign([Host("localhost", 2)], 2))
plan = LaunchPlan(slots, "here", "mpirun", "mpi", (), dict(os.environ), is_local=True)
names = "HOROVOD_RANK=$rank HOROVOD_SIZE=2 HOROVOD_LOCAL_RANK=$rank HOROVOD_LOCAL_SIZE=2"
rank = f"env {names} {sys.executable} -m ringtune.launch.rank -- sh -c '{sys.argv[1]}'"
folder = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
command = Command(("/bin/sh", "-c", f"for rank in 0 1; do {rank} & done; wait"))
sys.exit(Job(plan, command, "127.0.0.1", timeouts=Timeouts(), bound=False, output_dir=folder).run())
"""


def start(program: str, *words: object, hang_up: signal.Handlers = signal.SIG_DFL, **streams) -> subprocess.Popen[str]:
    """Start a job whose two ranks run a program of the shell, with what a hang-up does to it. words: --output-dir.

    SIGUSR1 is ignored, as where a batch step of ringtune-slurm starts it.
    """

    def prepare() -> None:
        signal.signal(signal.SIGHUP, hang_up)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, "-c", CODE, program, *map(str, words)],
        text=True,
        preexec_fn=prepare,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | streams),
    )
