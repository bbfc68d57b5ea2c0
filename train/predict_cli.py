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
    # Horovod's threads meet every millisecond by default and spin until all have come: on busy cores that takes a third of
    # the time from prediction, which has next to nothing to exchange (2,048 real rows, two ranks: 7.0 s, at 20 ms 4.6 s).
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "20")
    rank.main(predict_config.COMMAND.name, lambda: predict_config.parse(argv), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.predict import run

    return run


if __name__ == "__main__":
    main()
