"""A run of ringtune-train as a process of its own, and what becomes of a request to stop."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ringtune.train import sweep
from ringtune.train.contract import UsageError, promised_size


def command(
    folder: Mapping[str, str], settings: Mapping[str, str], options: argparse.Namespace, flags: Sequence[str]
) -> list[str]:
    """Return the command of one run. ``-P``: modules are not taken from the working folder. **Pure.**

    folder: what the run directory is named by. settings: of this run, beside the flags. options: of
    `series.add_common`.
    """
    python = [sys.executable, "-P", "-m"]
    output = options.output_dir / sweep.folder_name(folder)
    train = [*python, "ringtune.train.cli", *flags, *sweep.flags(settings), f"--output_dir={output}"]
    if options.num_proc is None:
        return train
    return [*python, "ringtune.launch.cli", "run", "-np", str(options.num_proc), "--", *train]


def refuse_ranks(num_proc: int | None) -> None:
    """Raise UsageError for several ranks of a command that starts runs, or for runs of no rank."""
    if promised_size() > 1:
        raise UsageError(
            "launcher", "it started several ranks of this command", legal="no launcher", todo="use --num_proc"
        )
    if num_proc is not None and num_proc < 1:
        raise UsageError("--num_proc", f"{num_proc} is too few", legal="a number from 1")


class Stop:
    """Whether a stop was asked for. A terminal sends SIGINT to the run as well; SIGTERM is handed on to it."""

    def __init__(self) -> None:
        self.requested = False
        self.process: subprocess.Popen[bytes] | None = None
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.requested = True
        if number == signal.SIGTERM and self.process is not None:
            self.process.terminate()

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a run and return its exit code."""
        self.process = process
        return process.wait()
