"""Damage each file that a command finds, one at a time, and start it: ``damage.py JSON``.

The JSON says: ``command`` ("train" or "predict"), its ``flags``, ``before`` (a folder whose copy the command finds),
``folder`` (where it works), ``inside`` (the part of it whose files are damaged) and ``harmless`` (parts of names that
decide nothing). A file has one bit flipped, is cut to half, emptied or removed. Prints one JSON object a line: what was
damaged, how the command ended, and what it left.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import forked

job = json.loads(sys.argv[1])
command, flags, folder = job["command"], job["flags"], Path(job["folder"])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


WAYS: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


def begin() -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(job["before"], folder, symlinks=True)


def start() -> dict:
    """Run the command and return how it ended."""
    code, output = forked.start(command, flags, folder.with_name("output.txt"))
    return {"code": code, "printed": output, **(forked.result(command, flags) if code == 0 else {})}


begin()
files = [each for each in (folder / job["inside"]).rglob("*") if each.is_file() and each.stat().st_size]
names = sorted(str(each.relative_to(folder)) for each in files if "best" not in each.parts)  # the same ones again
names = [name for name in names if not any(part in name for part in job["harmless"])]
print(json.dumps(start()), flush=True)
for number, name in enumerate(names):
    ways = list(WAYS) if job["all"] else [list(WAYS)[number % len(WAYS)]]
    for way in ways:
        begin()
        WAYS[way](folder / name)
        print(json.dumps({"file": name, "way": way, **start()}), flush=True)
