"""Runs one after the other on this machine: ``ringtune-train sweep``.

Each run is a command of its own, which goes on where it stopped and does nothing when it has finished: so does the
whole series, started again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ringtune.train import child, config, results, search, sweep, trials
from ringtune.train.contract import (
    EXIT_FAILED,
    EXIT_FINISHED,
    EXIT_REQUEUE,
    EXIT_USAGE,
    UsageError,
    as_usage,
    refuse_file,
)

NAME = "sweep"
Table = Callable[[Sequence[results.Row]], str]
"""From the rows of a sweep to lines for people."""


def main(argv: Sequence[str]) -> int:
    """Run ``ringtune-train sweep`` and return its exit code."""
    options, flags = make_parser().parse_known_args(argv)
    try:
        refuse_file(options.output_dir)
        found = search.of_options(options, {name: each.type for name, each in config.FIELDS.items()})
        if found is None:
            return train_all(sweep.parse(options.sweep), options, flags, results.results_table)
        code = trials.run_all(found, options, flags)
        if not options.dry_run:
            show(found.axes, options, results.results_table)
        return code
    except (UsageError, OSError) as error:
        usage = as_usage(error)
        if not isinstance(usage, UsageError):
            raise
        print(f"ringtune-train {NAME}: {usage}", file=sys.stderr)
        return EXIT_USAGE


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own options."""
    parser = argparse.ArgumentParser(
        prog=f"ringtune-train {NAME}",
        usage=f"ringtune-train {NAME} --sweep NAME=VALUES [--sweep ...] [--search optuna --trials N] [--num_proc N] "
        "FLAGS OF ringtune-train",
        description="Train a run for every combination of the values, one after the other on this machine, and compare "
        "them: mean and deviation over seeds. With --search optuna, trials that are drawn one by one from ranges and "
        "lists: LOW..HIGH, LOW..HIGH:log, A,B,C. Started again, it goes on with what has not finished.",
        epilog="ringtune-slurm submit --sweep makes a job array of the same runs. exit codes: 0 all have finished, 75 "
        "stopped on request (run again), 2 wrong usage, 1 a run failed",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sweep", action="append", required=True, metavar="NAME=VALUES", help="learning_rate=1e-5,2e-5 or seed=1..5"
    )
    search.add_to(parser)
    add_common(parser, "runs/sweep")
    return parser


def add_common(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options of commands that train several runs. folder: for the runs, by default."""
    parser.add_argument("--output_dir", type=Path, default=Path(folder), help=f"folder of the runs' folders ({folder})")
    parser.add_argument("--num_proc", type=int, metavar="N", help="ranks of each run; default: one, without a launcher")
    parser.add_argument("--dry_run", action="store_true", help="check the flags, print the commands, train nothing")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def train_all(axes: sweep.Axes, options: argparse.Namespace, flags: Sequence[str], table: Table) -> int:
    """Train every run of a sweep and print the table of its scores; return the exit code.

    flags: of ringtune-train, for all runs. Raises UsageError for wrong ones, before the first run starts.
    """
    code = run_all(axes, options, flags)
    if not options.dry_run:
        show(axes, options, table)
    return code


def show(axes: sweep.Axes, options: argparse.Namespace, table: Table) -> None:
    """Print the scores of the runs that have finished, as a table or as JSON."""
    rows = results.collect(options.output_dir, axes)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else table(rows))
    best = results.best_trial(options.output_dir, axes)
    if best and not options.json:
        print(best)


def run_all(axes: sweep.Axes, options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Train every run of a sweep, as `train_all` does, without the table.

    A run that fails does not keep the others from running; one that is stopped on request ends the series.
    """
    child.refuse_ranks(options.num_proc)
    runs = sweep.expand(axes)
    commands = [child.command(settings, settings, options, flags) for settings in runs]
    for settings in sweep.to_check(axes):
        config.parse([*flags, *sweep.flags(settings)], lambda line: None)  # each run prints its own notes
    failed = []
    stop = child.Stop()
    for number, (settings, command) in enumerate(zip(runs, commands, strict=True), start=1):
        name = sweep.folder_name(settings)
        if options.dry_run:
            print(shlex.join(command))
            continue
        print(f"run {number} of {len(runs)}: {name}", file=sys.stderr, flush=True)
        code = stop.wait(subprocess.Popen(command))
        if stop.requested or code in (EXIT_REQUEUE, EXIT_USAGE):
            return EXIT_REQUEUE if stop.requested else code
        if code != EXIT_FINISHED:
            failed.append(name)
            print(f"run {number} of {len(runs)}: {name}: it failed with exit code {code}", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_FINISHED
