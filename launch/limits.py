"""What a host gives a process: memory, open files, processes, and room for temporary files. Standard library only."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

SHARED_MEMORY = Path("/dev/shm")
CGROUPS = Path("/sys/fs/cgroup")


def facts() -> dict[str, Any]:
    """Return this host's facts, sizes in bytes; None stands for no limit."""
    temporary = temporary_fault()
    return {
        "open_files": _soft_limit(resource.RLIMIT_NOFILE),
        "processes": _soft_limit(resource.RLIMIT_NPROC),
        "usable_memory": usable_memory(),
        "shared_memory": _free(SHARED_MEMORY),
        "temporary": temporary,
        "socket": "" if temporary else socket_fault(),
    }


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def usable_memory() -> int:
    """Return the memory that this process and those beside it may take, bytes: what is free, within cgroup's limit."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        return min([free, *_cgroup_limits()])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cgroup_limits(own: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> list[int]:
    """Return the limits of this process' groups and of those around them, bytes (cgroups(7), of both versions)."""
    found = []
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            folder, name = (root, "memory.max") if not kinds else (root / "memory", "memory.limit_in_bytes")
            if kinds and "memory" not in kinds.split(","):
                continue
            group = Path(path.lstrip("/"))
            for each in (group, *group.parents):
                with suppress(OSError, ValueError):  # there is none, or it is "max"
                    found.append(int((folder / each / name).read_text()))
    return found


def _free(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def temporary_fault() -> str:
    """Return why temporary files cannot be made where TMPDIR says, "" if they can."""
    folder = os.environ.get("TMPDIR", "")
    try:
        folder = folder or tempfile.gettempdir()
        tempfile.TemporaryDirectory(dir=folder).cleanup()
    except OSError as error:
        return f"TMPDIR={folder}: {error.strerror or error}"
    return ""


def socket_fault() -> str:
    """Return why a socket cannot be made where temporary files can, "" if it can. Its path has 107 bytes at most."""
    try:
        with tempfile.TemporaryDirectory() as own, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(Path(own) / "socket"))
    except OSError as error:
        return f"TMPDIR={tempfile.gettempdir()}: {error.strerror or error}"
    return ""
