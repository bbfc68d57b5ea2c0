"""Download one file from the package registry, its hash checked by pip; standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ringtune.launch import commands
from ringtune.train.contract import UsageError


def download(pin: str, folder: Path, *, source: bool) -> Path:
    """Return the one file, in a new ``folder``, that pip gets for ``name==version --hash=sha256:...``.

    Raises UsageError with pip's error message if that fails.
    """
    folder.mkdir(parents=True)
    requirements = folder.with_suffix(".txt")
    requirements.write_text(pin + "\n")
    command = [
        *commands.module("pip"),
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-r",
        str(requirements),
        "-d",
        str(folder),
    ]
    if source:
        command += ["--no-binary", ":all:", "--no-build-isolation"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        errors = " ".join(line for line in done.stderr.splitlines() if "ERROR" in line)[:300]
        raise UsageError(pin.split()[0], f"pip could not get it: {errors}", legal="a package registry within reach")
    return files[0]
