"""Kill a command before each of its acts on the disk, and run it again: ``kills.py JSON``.

The JSON says: ``command`` ("train" or "predict"), its ``flags``, ``before`` (a folder whose copy the command finds),
``folder`` (where it works), ``every`` (how many acts lie between two kills). An act is a file opened to be written, one
renamed, removed or linked, a folder made or removed; and half a write, of what ringtune writes in one piece. The kills
are SIGKILL. Prints one JSON object a line: where it was killed, how the second start ended, and what it left.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import forked
from ringtune.train import disk

job = json.loads(sys.argv[1])
command, flags, folder = job["command"], job["flags"], Path(job["folder"])
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PATHS = {"os.rename": 0, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.symlink": 1, "os.truncate": 0}


class Acts:
    """Counts acts, and kills the process before one of them."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.count = kill_at, 0

    def listen(self) -> None:
        sys.addaudithook(self.hear)
        disk.write_bytes = self.halved(disk.write_bytes)
        disk.append = self.halved(disk.append)

    def hear(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, mode = args
            acts = isinstance(mode, int) and mode & WRITES
        else:
            acts = event in PATHS
            path = args[PATHS[event]] if acts else ""
        if acts and str(path).startswith(str(folder)):
            if self.count == self.kill_at:
                self.die(f"{event} {os.fspath(path).removeprefix(str(folder))}")
            self.count += 1

    def die(self, words: str) -> None:
        os.write(1, f"\nkilled: {words}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def halved(self, write):
        def half(path, content):
            if str(path).startswith(str(folder)):
                if self.count == self.kill_at:
                    write(path, content[: len(content) // 2])
                    self.die(f"half a write {path.name}")
                self.count += 1
            return write(path, content)

        return half


def begin() -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if job["before"]:
        shutil.copytree(job["before"], folder, symlinks=True)
    else:
        folder.mkdir()


def left() -> list[str]:
    """Return names that should not be there any more."""
    return sorted(each.name for each in folder.rglob("*") if each.name.endswith((".tmp", ".old", ".parts")))


def start() -> tuple[int, dict]:
    """Run the command to its end and return its exit code, and what is to be compared."""
    code, output = forked.start(command, flags, folder.with_name("output.txt"))
    found = {**forked.result(command, flags), "left": left()} if code == 0 else {}
    return code, {"code": code, "output": output[-2000:], **found}


begin()
code, found = start()
print(json.dumps(found), flush=True)
kill_at = 0
while code == 0:
    begin()
    killed, output = forked.start(command, flags, folder.with_name("output.txt"), Acts(kill_at).listen)
    if killed != -signal.SIGKILL:
        print(json.dumps({"ended": killed, "acts": kill_at, "output": output[-2000:]}), flush=True)
        break
    print(
        json.dumps({"killed": output.rpartition("killed: ")[2].strip(), "kill_at": kill_at, **start()[1]}), flush=True
    )
    kill_at += job["every"]
