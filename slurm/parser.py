"""The arguments of ``ringtune-slurm``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ringtune.launch.parser import Parser
from ringtune.slurm import options as sbatch
from ringtune.slurm.profile import LAUNCHERS
from ringtune.slurm.script import RetryLimits
from ringtune.train import search

TAKE_SBATCH = ("submit", "script", "resume")  # commands with sbatch's options, also those of a site's own plug-ins
_EPILOG = "exit codes: 0 done, 1 the run failed or was cancelled, 2 wrong usage or a request that SLURM refused"
_USAGE = "%(prog)s [sbatch's options] [options] -- ARGUMENTS OF ringtune-train"


def make_parser() -> Parser:
    """Return the parser; of what it parses, ``command`` is the sub-command's name, ``parser`` its parser."""
    parser = Parser(
        prog="ringtune-slurm",
        passes_unknown=True,
        description="Submit a fine-tuning run to SLURM once; it requeues itself until it has finished.",
        epilog="tab completion: ringtune-slurm completion bash|zsh|tcsh",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    submit = _add(commands, "submit", "submit a run, or a sweep, and print the job's id", _USAGE)
    submit.add_argument(
        "--dry-run", action="store_true", help="show the script and what would be written; submit nothing"
    )
    script = _add(commands, "script", "print the batch script and submit nothing", _USAGE)
    submit.add_argument(
        "--after", action="append", default=[], metavar="RUN|JOB", help="start when this has finished (afterok)"
    )
    for each in (submit, script):
        _add_description(each)
        sbatch.add_to(each)
    _add_no_test(submit)
    _add_status(commands)
    _add_logs(commands)
    cancel = _add(commands, "cancel", "cancel a run's job")
    cancel.add_argument("targets", nargs="+", metavar="RUN|JOB")
    _add_resume(commands)
    _add_wait(commands)
    table = _add(commands, "table", "compare the runs of a sweep: mean and deviation over seeds")
    table.add_argument("folder", type=Path, metavar="DIR")
    table.add_argument("--json", action="store_true", help="for programs")
    completion = _add(commands, "completion", "print tab completion")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add(commands: Any, name: str, help: str, usage: str | None = None) -> Parser:
    parser: Parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        usage=usage,
        epilog=_EPILOG,
        allow_abbrev=False,
        passes_unknown=name in TAKE_SBATCH,
    )
    parser.set_defaults(parser=parser)
    return parser


def _add_status(commands: Any) -> None:
    status = _add(commands, "status", "show how runs are doing")
    status.add_argument(
        "targets", nargs="*", metavar="RUN|JOB", help="run directories or job ids (default: the latest jobs)"
    )
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument(
        "--stalled-after",
        type=float,
        default=600.0,
        metavar="S",
        help="call a running job stalled when it logged no step for so many seconds (600)",
    )


def _add_logs(commands: Any) -> None:
    logs = _add(commands, "logs", "show the log of a run's jobs")
    logs.add_argument("target", metavar="RUN|JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing until the run is over")
    logs.add_argument("--rank", type=int, metavar="R", help="only this rank's own output")


def _add_resume(commands: Any) -> None:
    resume = _add(
        commands,
        "resume",
        "submit a run again; it goes on from its newest checkpoint",
        "%(prog)s RUN|JOB [sbatch's options]",
    )
    resume.add_argument("target", metavar="RUN|JOB")
    _add_no_test(resume)
    sbatch.add_to(resume)


def _add_no_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-test", action="store_true", help="do not ask sbatch first whether the cluster could ever run it"
    )


def _add_wait(commands: Any) -> None:
    wait = _add(commands, "wait", "wait until runs are over")
    wait.add_argument("targets", nargs="+", metavar="RUN|JOB")
    wait.add_argument("--timeout", type=float, metavar="S", help="give up after so many seconds")


def _add_description(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="YAML of what is always the same here (default: ~/.config/ringtune/slurm.yaml)",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=A,B",
        help="one run for each value (also 1..5), for each combination if repeated; one job array",
    )
    search.add_to(parser)
    parser.add_argument("--launcher", choices=LAUNCHERS, help="what starts the ranks in the job (default: srun)")
    parser.add_argument("--controller", choices=("mpi", "gloo"), help="default: the launcher's, for srun gloo")
    parser.add_argument(
        "--max-requeues",
        type=int,
        default=RetryLimits.max_requeues,
        metavar="N",
        help=f"requeue so often at most ({RetryLimits.max_requeues})",
    )
    parser.add_argument(
        "--max-tries",
        type=int,
        default=RetryLimits.max_tries,
        metavar="N",
        help=f"give up after so many starts in a row without a step more ({RetryLimits.max_tries})",
    )
    parser.add_argument("--no-doctor", action="store_true", help="do not look at the nodes before the ranks start")
