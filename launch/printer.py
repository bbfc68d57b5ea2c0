"""Prints for the launcher, which must not stand still where nobody reads, nor fail where a terminal is closed."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections import deque
from typing import TextIO

MOST_WAITING = 1 << 26  # characters that wait to be read; then whoever prints waits, too


class Printer:
    """Prints lines on standard output and standard error, in order, by a thread of its own until it is closed."""

    def __init__(self) -> None:
        self.terminals = [stream for stream in (sys.stdout, sys.stderr) if stream.isatty()]
        self.changed = threading.Condition()  # guards the fields below
        self.waiting: deque[tuple[str, TextIO]] = deque()
        self.num_waiting = 0  # characters
        self.closed = False
        self.error: Exception | None = None  # by which the thread has ended
        self.thread: threading.Thread | None = None

    def print(self, text: str, stream: TextIO) -> None:
        """Print a text: without waiting for a reader while ranks run, directly when this is closed."""
        with self.changed:
            if not self.closed:
                if self.thread is None:
                    self.thread = threading.Thread(target=self._work, daemon=True)
                    self.thread.start()
                self.changed.wait_for(lambda: self.num_waiting < MOST_WAITING or self.error is not None)
                self.waiting.append((text, stream))
                self.num_waiting += len(text)
                self.changed.notify_all()
                return
        self._write(text, stream)

    def check(self) -> None:
        """Raise the error that printing has met since this was asked for last, such as BrokenPipeError."""
        with self.changed:
            error, self.error = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait until everything is printed. Raises as `check`."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        if self.thread is not None:
            self.thread.join()
        self.check()

    def _work(self) -> None:
        try:
            while entry := self._next():
                self._write(*entry)
        except Exception as error:  # it is the main thread's to handle
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _next(self) -> tuple[str, TextIO] | None:
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closed)
            if not self.waiting:
                return None
            text, stream = self.waiting.popleft()
            self.num_waiting -= len(text)
            self.changed.notify_all()
            return text, stream

    def _write(self, text: str, stream: TextIO) -> None:
        """Write a text. What goes to a terminal that is closed is lost: the ranks are to save and end all the same."""
        try:
            print(text, file=stream, flush=True)
        except OSError as error:
            if error.errno != errno.EIO or stream not in self.terminals:
                raise
            # What Python still holds is written when it ends, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
