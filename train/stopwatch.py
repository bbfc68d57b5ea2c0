"""The time between points of a step, by the clock of the device that computes it."""

from __future__ import annotations

import time
from typing import Any

import torch


class Stopwatch:
    """Marks points of a step. On a GPU they are events in its stream: the host does not wait for them."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.marks: dict[str, Any] = {}

    def mark(self, name: str) -> None:
        """Mark a point; one of the same name is replaced."""
        if self.on_gpu:
            self.marks[name] = torch.cuda.Event(enable_timing=True)
            self.marks[name].record()
        else:
            self.marks[name] = time.perf_counter()

    def seconds(self, first: str, second: str) -> float:
        """Return the time between two points, s. The GPU must have passed the second: read a result of it before."""
        start, end = self.marks[first], self.marks[second]
        return float(start.elapsed_time(end) / 1000 if self.on_gpu else end - start)
