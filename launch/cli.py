"""The command ``ringtune-launch``; standard library only, so that it answers at once on a login node."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ringtune.train.contract import EXIT_USAGE, UsageError


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-launch`` and exit with its code."""
    options = _parser().parse_args(argv)
    try:
        sys.exit(options.run(options))
    except UsageError as error:
        print(f"ringtune-launch: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ringtune-launch", description="Make Horovod ready on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    horovod = commands.add_parser(
        "horovod",
        help="build, install and prove Horovod for the torch and MPI of this environment",
        description="Build the untouched Horovod sources for the torch, MPI and CUDA of this environment, keep the wheel "
        "in a cache, install it, and prove it by an allreduce of two ranks over MPI and over Gloo.",
        epilog="exit codes: 0 Horovod works, 2 something is missing (said by name), 1 the build or the proof failed",
    )
    horovod.add_argument("--dry-run", action="store_true", help="show what would be done and do nothing")
    horovod.add_argument("--force", action="store_true", help="build even if the cache has the wheel")
    horovod.add_argument("--cache-dir", type=Path, help="default: $RINGTUNE_CACHE or ~/.cache/ringtune")
    horovod.add_argument("--jobs", type=int, help="compilers at once (default: one per core)")
    horovod.add_argument("--no-verify", action="store_true", help="leave out the proof")
    horovod.set_defaults(run=_horovod)
    return parser


def _horovod(options: argparse.Namespace) -> int:
    from ringtune.launch import horovod

    return horovod.provide(
        cache_dir=options.cache_dir, dry_run=options.dry_run, force=options.force, jobs=options.jobs,
        verify=not options.no_verify,
    )  # fmt: skip


if __name__ == "__main__":
    main()
