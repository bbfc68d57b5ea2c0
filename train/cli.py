"""The command ``ringtune-train``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ringtune.train import config, rank


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-train`` and leave the process with its exit code."""
    rank.main(config.COMMAND.name, lambda: config.parse(argv), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.run import run

    return run


if __name__ == "__main__":
    main()
