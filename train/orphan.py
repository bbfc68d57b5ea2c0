"""End a rank whose launcher is gone: nobody else would, and it would hold the run's folder and its cores.

Open MPI ends the ranks of an mpirun that was killed; but horovodrun starts mpirun through a shell, and where that is
killed mpirun goes on. A rank looks at its ancestors' own records of their parents (proc(5), /proc/PID/stat).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ringtune.train.contract import EXIT_FAILED, RANK_VARIABLES

CHECK_EVERY_S = 1.0
PROC = Path("/proc")


def end_with_launcher(environ: Mapping[str, str] = os.environ) -> None:
    """From now on, end this process soon after its launcher. Without a launcher's variables nothing is watched."""
    variable = next((name for name in RANK_VARIABLES if name in environ), None)
    if variable is not None and PROC.is_dir():
        parents = up_to_launcher(os.getpid(), variable)
        threading.Thread(target=_watch, args=(parents,), name="launcher", daemon=True).start()


def up_to_launcher(process: int, variable: str) -> dict[int, int]:
    """Return the parent of a rank's process, of every wrapper that it runs in, and of its launcher if that is a shell.

    variable: the launcher's, with the rank: wrappers, such as a shell script, have it in their environment, and the
    launcher has not.
    """
    parents = {process: parent_of(process)}
    while variable in _environment_of(parents[process]):
        process = parents[process]
        parents[process] = parent_of(process)
    launcher = parents[process]
    shell = parent_of(launcher)
    if _is_started_by_shell(launcher, shell):
        parents[launcher] = shell
    return parents


def parent_of(process: int) -> int:
    """Return a process's parent, 0 for one that is gone."""
    try:
        return int((PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _environment_of(process: int) -> set[str]:
    """Return the names of a process's variables; none of another user's process, which is no wrapper of this one."""
    try:
        content = (PROC / str(process) / "environ").read_bytes()
    except OSError:
        return set()
    return {os.fsdecode(each.partition(b"=")[0]) for each in content.split(b"\0")}


def _is_started_by_shell(launcher: int, shell: int) -> bool:
    """Return whether a shell, ``sh -c COMMAND``, waits for the launcher, so that it is alive as long as the launcher.

    One with an & may have put it into the background.
    """
    words = _command_of(shell)
    is_shell = len(words) > 2 and Path(words[0]).name in ("sh", "bash", "dash") and words[1] == "-c"
    arguments = _command_of(launcher)[1:4]
    return is_shell and "&" not in words[2] and bool(arguments) and all(word in words[2] for word in arguments)


def _command_of(process: int) -> list[str]:
    try:
        return os.fsdecode((PROC / str(process) / "cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def _watch(parents: Mapping[int, int]) -> None:
    while all(parent_of(process) == parent for process, parent in parents.items()):
        time.sleep(CHECK_EVERY_S)
    with suppress(OSError):  # who read this rank's words may be gone, too
        words = "the launcher of this rank is gone: the rank ends; its run goes on from its newest checkpoint"
        print(words, file=sys.stderr, flush=True)
    os._exit(EXIT_FAILED)
