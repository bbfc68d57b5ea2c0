"""The output of the ranks: printed with the rank in front, kept in a file per rank, searched for failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ringtune.launch.blame import TRACEBACK
from ringtune.launch.rank_state import RankState
from ringtune.train.contract import UsageError

KEPT_LINES = 40  # of a rank's stderr without a traceback, and of the launcher's output


class RankOutput:
    """Prints, keeps and searches the lines of all ranks."""

    def __init__(self, states: Sequence[RankState], output_dir: Path | None, *, tagged: bool) -> None:
        self.states, self.output_dir, self.tagged = states, output_dir, tagged
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

        From the start of a traceback on, lines are kept and not printed: at the job's end the one that matters is
        printed once.
        """
        if state.log is not None:
            print(text, file=state.log, flush=True)
        ending = state.ending
        if stream == "err" and TRACEBACK in text and not state.in_traceback:
            state.in_traceback, ending.stderr_lines = True, []
            ending.failed_at = ending.failed_at or time.monotonic()
        if state.in_traceback:
            ending.stderr_lines.append(text)
            return
        if stream == "err":
            ending.stderr_lines = [*ending.stderr_lines[1 - KEPT_LINES :], text]
            self._note_stall(text)
        tag = self._tag(state) if self.tagged else ""
        print(f"{tag}{text}", file=sys.stdout if stream == "out" else sys.stderr, flush=True)

    def print_tracebacks(self) -> None:
        """Print the tracebacks of ranks that did not fail: they were kept back by ``take_line``."""
        for state in self.states:
            for line in state.ending.stderr_lines if state.in_traceback else ():
                print(f"{self._tag(state)}{line}", file=sys.stderr)

    def _tag(self, state: RankState) -> str:
        return f"[{state.ending.slot.rank:>{self.width}}] "

    def _note_stall(self, text: str) -> None:
        if text.strip() == "Missing ranks:":
            self.stalled = [text]
        elif self.stalled and text[:1].isdigit():
            self.stalled.append(text)
