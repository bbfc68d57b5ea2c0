"""How far apart the scores of slices may be: the bounds of ``--max_gap``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringtune.train.columns import split_names
from ringtune.train.contract import UsageError


def bounds(joined: str | None) -> dict[str, float]:
    """Return the largest gap allowed of each score that a flag such as ``f1=0.1,accuracy=0.05`` names. **Pure.**

    Raises UsageError for what is no bound, and for two of one score.
    """
    found: dict[str, float] = {}
    for part in split_names(joined):
        name, _, number = (each.strip() for each in part.partition("="))
        if name in found:
            raise UsageError(f"--max_gap {part}", f"{name} is named twice", legal="each score once")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = -1.0
        if not found[name] >= 0:
            raise UsageError(f"--max_gap {part}", "it is no bound", legal="SCORE=NUMBER from 0, such as f1=0.1")
    return found


def require_known(limits: Mapping[str, float], names: Sequence[str]) -> None:
    """Raise UsageError for a bound on what is no score. names: of the scores. **Pure.**"""
    for name in limits:
        if name not in names:
            raise UsageError(f"--max_gap {name}", f"there is no score {name}", legal=", ".join(names))
