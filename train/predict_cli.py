"""The command ``ringtune-predict``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ringtune.train import predict_config, rank


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-predict`` and leave the process with its exit code."""
    # Open MPI 5.0.11's one-sided component for UCX complains on every rank that has no UCX device; others serve a counter
    # as well.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    rank.main(predict_config.COMMAND.name, lambda: predict_config.parse(argv), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.predict import run

    return run


if __name__ == "__main__":
    main()
