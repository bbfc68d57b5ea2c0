"""What the tests of commands share: the training command, and what a usage error must look like."""

from __future__ import annotations

from conftest import Done

CLI = ("-m", "ringtune.train.cli")


def usage_error(done: Done, command: str = "ringtune-train") -> str:
    """Return the one line of a usage error, after checking that it is all there is."""
    assert done.returncode == 2, done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if f"{command}: " in line]
    assert len(lines) == 1, done.output
    return lines[0]
