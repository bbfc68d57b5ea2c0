"""The output of the ranks: printed with the rank in front, kept in a file per rank, searched for failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ringtune.launch.blame import TRACEBACK, is_consequence
from ringtune.launch.printer import Printer
from ringtune.launch.rank_state import RankState
from ringtune.train.contract import ORDERLY, UsageError

HELD_S = 3.0  # how long a traceback waits for the end of its rank before it is one that the rank survives
KEPT_LINES = 40  # of a rank's stderr without a traceback, and of the launcher's output


class RankOutput:
    """Prints, keeps and searches the lines of all ranks."""

    def __init__(self, states: Sequence[RankState], output_dir: Path | None, *, tagged: bool) -> None:
        self.states, self.output_dir, self.tagged = states, output_dir, tagged
        self.printer = Printer()
        self.width = len(str(len(states) - 1))  # of the largest rank
        self.stalled: list[str] = []  # the latest report of Horovod's stall inspector

    def open_logs(self) -> None:
        """Open a file for each rank. Raises UsageError if that fails; nothing has started yet."""
        if self.output_dir is None:
            return
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            for state in self.states:
                name = f"rank-{state.ending.slot.rank:0{self.width}}.log"
                state.log = (self.output_dir / name).open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"--output-dir {self.output_dir}", str(error.strerror), legal="a folder one may write to"
            ) from None

    def close_logs(self) -> None:
        """Close the files of all ranks."""
        for state in self.states:
            if state.log is not None:
                state.log.close()

    def take_line(self, state: RankState, stream: str, text: str) -> None:
        """Log and print one line of a rank's ``stream`` ("out" or "err").

        From the start of a traceback on, lines of stderr are held: of a rank that it ends, the one that matters is
        printed once at the job's end; `release_survived` prints the others.
        """
        if state.log is not None:
            print(text, file=state.log, flush=True)
        ending = state.ending
        if stream == "err" and TRACEBACK in text and not state.in_traceback:
            state.in_traceback, ending.stderr_lines = True, []
            ending.failed_at = time.monotonic()
        if stream == "err" and state.in_traceback:
            ending.stderr_lines.append(text)
            return
        if stream == "err":
            ending.stderr_lines = [*ending.stderr_lines[1 - KEPT_LINES :], text]
            self._note_stall(text)
        self._print(state, stream, text)

    def release_survived(self, now: float) -> None:
        """Print the tracebacks of ranks that go on after them; what ends such a rank later is looked for anew."""
        for state in self.states:
            began_at = state.ending.failed_at
            if not state.in_traceback or state.has_ended or began_at is None or now - began_at < HELD_S:
                continue
            if not _is_asked_to_stop(state):
                self._release(state)
                state.in_traceback, state.ending.failed_at = False, None
                state.ending.stderr_lines = state.ending.stderr_lines[-KEPT_LINES:]

    def print_held(self, *, stopped: bool) -> None:
        """Print at the end what is still to be printed, and what was held of ranks that no traceback has ended.

        stopped: whether the job was asked to; that ranks were, or that others ended before, is not printed.
        """
        self.printer.close()
        for state in self.states:
            ending = state.ending
            survived = stopped or ending.was_terminated or ending.exit_code in ORDERLY
            if state.in_traceback and survived and not _is_asked_to_stop(state) and not is_consequence(ending):
                self._release(state)

    def _release(self, state: RankState) -> None:
        for line in state.ending.stderr_lines:
            self._note_stall(line)
            self._print(state, "err", line)

    def _print(self, state: RankState, stream: str, text: str) -> None:
        tag = f"[{state.ending.slot.rank:>{self.width}}] " if self.tagged else ""
        self.printer.print(f"{tag}{text}", sys.stdout if stream == "out" else sys.stderr)

    def _note_stall(self, text: str) -> None:
        if text.strip() == "Missing ranks:":
            self.stalled = [text]
        elif self.stalled and text[:1].isdigit():
            self.stalled.append(text)


def _is_asked_to_stop(state: RankState) -> bool:
    """Return whether a traceback is that of Ctrl-C or SIGINT, by which Python ends on request."""
    return state.ending.stderr_lines[-1].startswith("KeyboardInterrupt")
