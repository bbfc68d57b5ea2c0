"""Folders that killed processes of Open MPI's launcher have left on this host. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(r"(?:ompi|prted)\.(\d+)")


def remove_left_behind(environ: Mapping[str, str] = os.environ) -> None:
    """Remove this user's session folders whose process has ended.

    mpirun keeps files in ``ompi.PID`` among the temporary files, its daemon on another host in ``prted.PID``. A killed
    one leaves them, and the next that is given its process id does not start: it makes these files and overwrites none
    (write_rndz_file of OpenPMIx 5.0). In a container that is started again, process ids are those of before. What
    cannot be removed stays, and mpirun ends as it would have.
    """
    variables = ("TMPDIR", "TEMP", "TMP")  # as pmix_tmp_directory of OpenPMIx has it
    temporary = next((environ[name] for name in variables if environ.get(name)), "/tmp")
    for folder in Path(temporary).glob("*.*"):
        if _is_left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left_behind(folder: Path) -> bool:
    """Return whether a session folder is of this user and host, and of a process that has ended.

    A container may share the temporary files of another that has process ids of its own: their host names differ.
    """
    found = _NAME.fullmatch(folder.name)
    if not found or _is_running(int(found[1])):
        return False
    host = socket.gethostname()
    try:
        is_own = folder.lstat().st_uid == os.geteuid()
        return is_own and any(any(folder.glob(f"pmix.{each}.tool*")) for each in (host, host.partition(".")[0]))
    except FileNotFoundError:
        return False  # its process has just ended, and removed it


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True
