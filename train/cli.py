"""The command ``ringtune-train``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ringtune.train import config, convert, rank


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-train`` and leave the process with its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [convert.NAME]:
        sys.exit(convert.main(words[1:]))
    rank.main(config.COMMAND.name, lambda: config.parse(words), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.run import run

    return run


if __name__ == "__main__":
    main()
