"""Prints for the launcher, also where the terminal is closed while the job runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO


class Printer:
    """Prints lines on standard output and standard error."""

    def __init__(self) -> None:
        self.terminals = [stream for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def print(self, text: str, stream: TextIO) -> None:
        """Print a text. What goes to a terminal that is closed is lost: the ranks are to save and end all the same."""
        try:
            print(text, file=stream, flush=True)
        except OSError as error:
            if error.errno != errno.EIO or stream not in self.terminals:
                raise
            # What Python still holds is written when it ends, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
