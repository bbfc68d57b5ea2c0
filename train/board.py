"""The curves of a run for TensorBoard, whose writer works in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.train import disk


class Board:
    """Curves in a folder. All methods raise OSError, naming the folder, if they cannot be written."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open them for a run that goes on from ``step``: what is there of later steps is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        threading.excepthook = _leave_to_main_thread(threading.excepthook)
        with disk.named(folder):
            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, event: str, values: Mapping[str, Any], step: int) -> None:
        """Add a point to the curve of each number."""
        with disk.named(self.folder):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the files."""
        with disk.named(self.folder):
            self.writer.close()


def _leave_to_main_thread(hook: Any) -> Any:
    """Return a hook that prints no traceback of the writer's thread: the next call of the writer raises its error."""

    def print_others(args: threading.ExceptHookArgs) -> None:
        if getattr(args.thread, "exception", None) is not args.exc_value:
            hook(args)

    return print_others
