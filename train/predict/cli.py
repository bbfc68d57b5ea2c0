"""The command ``ringtune-predict``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ringtune.train import rank
from ringtune.train.predict import config


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-predict`` and leave the process with its exit code."""
    # Open MPI 5.0.11's one-sided component for UCX prints an error on every rank without a UCX device; others serve a
    # counter as well.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    # Horovod's threads meet every millisecond by default, on cores that have to predict. Prediction has next to nothing
    # to exchange: meet less often (3,000 real rows, two ranks on two cores, CPU time: 19.4 s by default, 13.4 s every
    # 20 ms, 11.8 s where waiting ranks yield their core too, see Comm).
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "20")
    # Huge pages for torch's tensors on the CPU: 2 % of the time of a model's matrix products.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    rank.main(config.COMMAND.name, lambda: config.parse(argv), _load_work)


def _load_work() -> Callable[..., int]:
    from ringtune.train.predict.run import run

    return run


if __name__ == "__main__":
    main()
