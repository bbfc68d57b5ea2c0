"""The process of the launcher (mpirun, horovodrun or srun) and its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ringtune.launch.commands import which

END_GRACE_S = 5.0  # for the launcher to end when all ranks have, and after SIGTERM


class LauncherProcess:
    """A launcher as a child process with a process group of its own, and the lines it has printed."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.output: list[str] = []  # lines of stdout and stderr
        self._process = subprocess.Popen(
            _away_from_the_working_folder(argv),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        """Return the descriptor of the output."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self) -> bool:
        """Append the output that has arrived to ``output`` and return whether there will be no more."""
        try:
            while data := os.read(self.fileno(), 1 << 16):
                self.output += data.decode("utf-8", errors="replace").splitlines()
        except BlockingIOError:
            return False
        return True

    def exit_code(self) -> int | None:
        """Return the exit code, None while the process runs."""
        return self._process.poll()

    def end(self) -> None:
        """End the process if it still runs: SIGTERM, after END_GRACE_S SIGKILL."""
        if self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _away_from_the_working_folder(argv: Sequence[str]) -> list[str]:
    """Return a launcher's command; horovodrun's such that it imports nothing from the working folder.

    It starts further Pythons by multiprocessing, which look for modules where it does.
    """
    path = which(argv[0]) if argv[0] == "horovodrun" else None
    return [sys.executable, "-P", path, *argv[1:]] if path else list(argv)
