"""What the task of a job array trains: one combination of a sweep, or one trial of a search."""

from __future__ import annotations

import argparse
import os

from ringtune.train import compared, search, space, study, sweep
from ringtune.train.contract import UsageError


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """Return what names the run directory of this task; {} outside an array. options: of the batch step.

    Raises UsageError for a task that there is no run for: the script was submitted by hand.
    """
    if options.search is not None:
        return {search.TRIAL: os.environ["SLURM_ARRAY_TASK_ID"]}
    if not options.sweep:
        return {}
    runs, task = sweep.expand(sweep.parse(options.sweep)), int(os.environ["SLURM_ARRAY_TASK_ID"])
    if task >= len(runs):
        raise UsageError("--array", f"it has a task {task} of {len(runs)} runs", legal=f"0-{len(runs) - 1}")
    return runs[task]


def flags_of(options: argparse.Namespace, settings: dict[str, str], config: str) -> list[str]:
    """Return the arguments of ringtune-train that are this task's own.

    settings: of `settings_of`. config: YAML of the run. Those of a trial are asked of the search's study: at its first
    start it is drawn, at every other one it is the same. Raises UsageError for a study that does not fit.
    """
    found = search.of_options(options, {})
    if found is None:
        return sweep.flags(settings)
    import yaml

    facts = compared.facts_of(found, yaml.safe_load(config))
    drawn = study.Study(options.output_dir, facts).take(int(settings[search.TRIAL]))
    print(f"ringtune-slurm: trial {settings[search.TRIAL]} of {found.num_trials}: {space.shown(drawn)}", flush=True)
    return sweep.flags(drawn)


def settle(options: argparse.Namespace) -> None:
    """Tell the study of a search what its trials brought. Whoever opens it next does so too: a failure is no harm."""
    if options.search is None:
        return
    try:
        study.Study(options.output_dir).settle()
    except (UsageError, OSError) as error:
        print(f"ringtune-slurm: the study will be told later: {error}", flush=True)
