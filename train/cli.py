"""The command ``ringtune-train``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from ringtune.train import config, rank

#: Commands beside training, and their modules.
OTHERS = {"convert": "convert", "sweep": "series", "glue": "glue"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-train`` and leave the process with its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in OTHERS:
        sys.exit(importlib.import_module(f"ringtune.train.{OTHERS[words[0]]}").main(words[1:]))
    rank.main(config.COMMAND.name, lambda: config.parse(words), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.run import run

    return run


if __name__ == "__main__":
    main()
