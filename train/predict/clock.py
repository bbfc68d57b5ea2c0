"""Where the time of a rank's threads goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

ACTIVITIES = ("reading", "tokenising", "computing", "writing")


class Clock:
    """Seconds by activity, of one thread."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)

    @contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Count the time of the block as that activity's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - started
