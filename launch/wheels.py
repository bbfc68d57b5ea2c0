"""The cache of built Horovod wheels: one folder for each build, named by a key of all that made it."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ringtune.launch.target import Target
from ringtune.launch.toolchain import Toolchain

RECORD = "built.json"  # of a folder: what the wheel in it was built for and with; without it the folder is incomplete


@dataclass(frozen=True)
class Built:
    """One wheel of the cache."""

    folder: Path
    target: Target
    tools: dict[str, str]  # the versions of its Toolchain

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def wheel(self) -> Path:
        return next(self.folder.glob("*.whl"))


def key(recipe: str, target: Target, tools: Toolchain) -> str:
    """Return the name under which a build is kept; paths of the environment are not in it. **Pure.**

    recipe: the pinned release and its corrections as text.
    """
    parts = [recipe, asdict(target), versions(tools)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def versions(tools: Toolchain) -> dict[str, str]:
    """Return the versions of the compilers without their paths. **Pure.**"""
    return {"compiler": tools.compiler_version, "cmake": tools.cmake, "nvcc": tools.nvcc}


def record(recipe: str, target: Target, tools: Toolchain) -> str:
    """Return the text of a folder's record. **Pure.**"""
    return json.dumps({"recipe": recipe, "target": asdict(target), "tools": versions(tools)}, indent=1)


def find_built(cache: Path, recipe: str, target: Target, tools: Toolchain | None) -> Built | None:
    """Return the newest wheel that runs with this target; with ``tools``, one that these made."""
    found = [each for each in _all(cache, recipe) if target.fits(each.target)]
    if tools:
        found = [each for each in found if each.tools == versions(tools)]
    return max(found, key=lambda each: each.folder.stat().st_mtime, default=None)


def _all(cache: Path, recipe: str) -> Iterator[Built]:
    for path in cache.glob(f"*/{RECORD}"):
        read = json.loads(path.read_text())
        if read["recipe"] == recipe:
            fields = read["target"]
            for name in ("run_path", "capabilities"):
                fields[name] = tuple(fields[name])
            yield Built(path.parent, Target(**fields), read["tools"])


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time build a wheel; the kernel releases the lock when its holder ends (flock(2))."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
