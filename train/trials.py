"""The trials of a search, one after the other on this machine: ``ringtune-train sweep --search optuna``.

Each trial is a command of its own that goes on where it stopped; so is the search, started again: the study knows which
trials there are, and what they brought is read from their run directories.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Sequence

from ringtune.train import child, compared, config, search, space, study, trial
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_PRUNED, EXIT_REQUEUE, EXIT_USAGE


def run_all(found: search.Search, options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Train every trial that has not ended, and return the exit code. flags: of ringtune-train, for all trials.

    A trial that fails does not keep the others from running: it counts as a bad one for those that are drawn later, and
    is tried again when the search is started again. So does one whose settings are refused together, but for the first:
    what all trials have may be wrong. One that is stopped on request ends the search.
    """
    child.refuse_ranks(options.num_proc)
    search.require_optuna()
    settings = search.check(found, flags, config.parse, lambda line: None)  # each trial prints its own notes
    facts = compared.facts_of(found, dataclasses.asdict(settings))
    if options.dry_run:
        _show(found, options, flags, settings.seed)
        return EXIT_FINISHED
    trials = study.Study(options.output_dir, facts)
    stop, failed, any_ended = child.Stop(), False, False
    for number in range(found.num_trials):
        if stop.requested:
            return EXIT_REQUEUE
        drawn = trials.take(number)
        name = f"trial {number} of {found.num_trials}"
        print(f"{name}: {space.shown(drawn)}{_ended(trials, number)}", file=sys.stderr, flush=True)
        if trials.has_ended(number):
            any_ended = True
            continue
        code = stop.wait(subprocess.Popen(_command(number, drawn, options, flags)))
        trials.settle()
        if stop.requested or code == EXIT_REQUEUE:
            return EXIT_REQUEUE
        if code == EXIT_USAGE and not any_ended:  # the flags of all trials are wrong, it seems
            return code
        any_ended = any_ended or code in (EXIT_FINISHED, EXIT_PRUNED)
        if code not in (EXIT_FINISHED, EXIT_PRUNED):
            failed = True
            print(f"{name}: it failed with exit code {code}", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_FINISHED


def _ended(trials: study.Study, number: int) -> str:
    """Return what a trial brought that has ended, "" for another."""
    found = trial.outcome(trials.run_of(number)) if trials.has_ended(number) else None
    return "" if found is None else f": ended before, {found.shown()}"


def _command(number: int, drawn: dict[str, str], options: argparse.Namespace, flags: Sequence[str]) -> list[str]:
    return child.command({search.TRIAL: str(number)}, drawn, options, flags)


def _show(found: search.Search, options: argparse.Namespace, flags: Sequence[str], seed: int) -> None:
    """Print the command of the first trial; those of the others depend on what it brings."""
    first = study.draw([], found.space, seed, 0).params
    drawn = {name: each.written(first[name]) for name, each in found.space.items()}
    print(f"{found.num_trials} trials over {', '.join(found.words)}; the first one of a new search:", file=sys.stderr)
    print(shlex.join(_command(0, drawn, options, flags)))
