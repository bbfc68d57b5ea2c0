"""The text of a batch script: one pure function of a job's description.

The script is whole in itself: it holds the run's resolved configuration as a here-document, so that neither an edited
YAML file nor an edited copy of the script changes a job that waits, and it can be submitted by hand.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ringtune.launch import commands
from ringtune.slurm import options
from ringtune.slurm.profile import Container
from ringtune.train.contract import SLURM_DIR, UsageError
from ringtune.train.search import OPTUNA, Search
from ringtune.train.sweep import Axes

END_OF_CONFIG = "RINGTUNE_CONFIG"  # a line of YAML never starts with it: keys are lower case, text is indented


@dataclass(frozen=True)
class RetryLimits:
    """When a job is not requeued any more."""

    max_requeues: int = 100  # how often in all
    max_tries: int = 2  # starts in a row without one step more in a checkpoint


@dataclass(frozen=True)
class BatchJob:
    """Everything that a batch script contains."""

    folder: str  # absolute: the run directory, of a sweep the folder of its run directories
    config: str  # YAML of ringtune-train, resolved
    sbatch: Mapping[str, str | None]  # complete
    python: str  # interpreter on the nodes
    version: str  # of ringtune
    setup: Sequence[str] = ()
    launcher: str = "srun"
    controller: str = ""
    carry: Sequence[str] = ()
    container: Container | None = None
    limits: RetryLimits = field(default_factory=RetryLimits)
    axes: Axes = field(default_factory=dict)
    search: Search | None = None  # whose trials the axes are
    examined: bool = True  # by doctor, before the ranks start


def log_pattern(job: BatchJob) -> str:
    """Return where the job's log goes, with sbatch's placeholders. **Pure.**"""
    if "\\" in job.folder or "\n" in job.folder:
        raise UsageError(
            f"--output_dir {job.folder!r}", "sbatch cannot write a log there", legal="no backslash, no line break"
        )
    name = "%A_%a" if job.axes else "%j"
    return str(Path(job.folder.replace("%", "%%")) / SLURM_DIR / f"{name}.log")


def text(job: BatchJob) -> str:
    """Return the script. **Pure.** Raises UsageError for what no script can hold."""
    own = {"output": log_pattern(job), "open-mode": "append"}
    directives = [options.directive(name, value) for name, value in {**job.sbatch, **own}.items()]
    folder = str(Path(job.folder) / SLURM_DIR)
    return "\n".join(
        [
            "#!/bin/bash",
            *directives,
            "",
            f"# Written by ringtune-slurm {job.version}. By hand: mkdir -p {shlex.quote(folder)} && sbatch THIS_FILE",
            "set -e",
            *job.setup,
            f"exec {_command(job)} <<'{END_OF_CONFIG}'",
            job.config.rstrip("\n"),
            END_OF_CONFIG,
            "",
        ]
    )


def directives(path: Path) -> dict[str, str]:
    """Return the options that a script holds, as it has them, {} if it cannot be read: sbatch will say so."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in found}


def _command(job: BatchJob) -> str:
    options = [
        f"--output-dir={job.folder}",
        f"--launcher={job.launcher}",
        *([f"--controller={job.controller}"] if job.controller else []),
        f"--max-requeues={job.limits.max_requeues}",
        f"--max-tries={job.limits.max_tries}",
        *([] if job.examined else ["--no-doctor"]),
        *(f"--carry={each}" for each in job.carry),
        *(f"--container={word}" for word in _container_words(job.container)),
        *_sweep_words(job),
    ]
    start = shlex.join(commands.module("ringtune.slurm.batch", job.python))
    return " \\\n  ".join([start, *map(shlex.quote, options), '--script="$0"'])


def _sweep_words(job: BatchJob) -> list[str]:
    if job.search is None:
        return [f"--sweep={name}={','.join(values)}" for name, values in job.axes.items()]
    found = job.search
    options = [f"--search={OPTUNA}", f"--trials={found.num_trials}", f"--pruning={found.pruning_word}"]
    return [*options, *(f"--sweep={word}" for word in found.words)]


def _container_words(container: Container | None) -> list[str]:
    return [container.runtime, container.image, *container.options] if container else []
