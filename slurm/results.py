"""The sweep that a folder holds, for `ringtune.train.results`."""

from __future__ import annotations

import json
from pathlib import Path

from ringtune.slurm.record import SWEEP_FILE
from ringtune.train.contract import SLURM_DIR, UsageError
from ringtune.train.sweep import Axes


def axes_of(folder: Path) -> Axes:
    """Return the axes of the sweep in a folder. Raises UsageError if it is none."""
    try:
        found: Axes = json.loads((folder / SLURM_DIR / SWEEP_FILE).read_text(encoding="utf-8"))["axes"]
    except (OSError, ValueError, KeyError):
        raise UsageError(
            str(folder),
            "it is no sweep",
            legal="a folder of ringtune-slurm submit --sweep",
            todo="see ringtune-slurm status",
        ) from None
    return found
