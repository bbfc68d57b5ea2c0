"""The command by which a batch job starts its ranks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ringtune.launch import commands

STOP_LIMIT_S = 600  # SLURM's own limits end a stop sooner: the time that is left, or KillWait


def ranks_command(options: argparse.Namespace, logs: Path, words: Sequence[str]) -> list[str]:
    """Return the command line of ``ringtune-launch run``. **Pure.**

    options: of the batch step. logs: folder for the ranks' output. words: the arguments of ringtune-train.
    """
    return [
        *commands.module("ringtune.launch.cli"),
        "run",
        *("--launcher", options.launcher),
        *(["--controller", options.controller] if options.controller else []),
        *(f"--carry={each}" for each in options.carry),
        *("--output-dir", str(logs)),
        *("--stop-timeout", str(STOP_LIMIT_S)),
        *([] if options.no_doctor else ["--no-check"]),  # doctor has just examined the nodes
        *_srun_options(options.container),
        "--",
        *_container_words(options.container),
        "ringtune-train",
        *words,
    ]


def _container_words(container: Sequence[str]) -> list[str]:
    """Return the words before the ranks' program: apptainer starts it in its container."""
    runtime, image, *more = container or ["", ""]
    return [runtime, "exec", *more, image] if runtime in ("apptainer", "singularity") else []


def _srun_options(container: Sequence[str]) -> list[str]:
    """Return the container options of srun: the plug-in pyxis starts the whole task in its container."""
    runtime, image, *more = container or ["", ""]
    return [f"--srun-option={word}" for word in (f"--container-image={image}", *more)] if runtime == "pyxis" else []
