"""The commands of this environment and of the system: where they are and what they answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


def scripts_folder() -> Path:
    """Return the folder of this environment's commands; it need not be on PATH."""
    return Path(sysconfig.get_path("scripts"))


def module(name: str, python: str = sys.executable) -> list[str]:
    """Return the command that runs a module of this environment.

    ``-P``: a file of the working folder, such as random.py, is not taken for the one of Python.
    """
    return [python, "-P", "-m", name]


def which(name: str) -> str | None:
    """Return the path of a command of this environment or of the system."""
    return shutil.which(name, path=search_path(os.environ))


def search_path(environ: Mapping[str, str]) -> str:
    """Return PATH with this environment's commands first. **Pure.**"""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    own = str(scripts_folder())
    return os.pathsep.join([own, *(each for each in folders if each != own)])


def output_of(command: list[str], *, timeout_s: float = 60) -> str:
    """Return what a command prints, stdout before stderr; "" if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else (done.stdout + done.stderr).strip()


def first_line(command: list[str]) -> str:
    """Return the first line of what a command prints."""
    return output_of(command).split("\n")[0]
