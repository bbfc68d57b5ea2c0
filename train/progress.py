"""Show progress on a terminal as a bar, elsewhere as a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A bar with loss, samples/s and ETA. Under a launcher, whose pipes tear bars apart, whole lines instead."""

    def __init__(
        self,
        total: int,
        description: str,
        *,
        initial: int = 0,
        unit: str = "it",
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.total, self.description, self.unit, self.shown = total, description, unit, shown
        self.initial, self.done = initial, initial
        self.started = self.last_line = time.monotonic()
        self.bar: Any = None
        if shown and self.stream.isatty():
            self.bar = tqdm(
                total=total, initial=initial, desc=description, unit=unit, file=self.stream, dynamic_ncols=True
            )

    def update(self, done: int, facts: str = "") -> None:
        """Say that ``done`` of the total are finished, with a few facts to print beside."""
        self.done = done
        if self.bar is not None:
            self.bar.set_postfix_str(facts, refresh=False)
            self.bar.update(done - self.bar.n)
        elif self.shown and (time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or done == self.total):
            self.last_line = time.monotonic()
            meter = tqdm.format_meter(
                done,
                self.total,
                self.last_line - self.started,
                ncols=100,
                prefix=self.description,
                unit=self.unit,
                postfix=facts,
                initial=self.initial,
                ascii=True,
            )
            print(meter, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
