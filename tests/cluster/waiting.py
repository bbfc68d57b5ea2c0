"""Waiting for what must come true."""

from __future__ import annotations

import time
from collections.abc import Callable


def settled(condition: Callable[[], bool], limit_s: float = 30, every_s: float = 0.05) -> bool:
    """Wait until the condition holds; return whether it did within the limit. How soon is not asked."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
