"""The command ``ringtune-slurm``; imports neither torch nor horovod, so that it answers at once on a login node."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringtune.slurm import options as sbatch
from ringtune.slurm.profile import LAUNCHERS
from ringtune.slurm.script import Limits
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_USAGE, UsageError

_EPILOG = "exit codes: 0 done, 1 the run failed or was cancelled, 2 wrong usage or a request that SLURM refused"


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-slurm`` and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(words[:cut])
        options.train, options.argv = words[cut + 1 :], words
        if unknown or (options.train and options.command not in ("submit", "script")):
            options.sbatch = {**_sbatch(options), **_take_unknown(options, unknown)}
        sys.exit(options.run(options))
    except UsageError as error:
        print(f"ringtune-slurm: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe has had enough
        sys.exit(EXIT_FINISHED)
    except KeyboardInterrupt:
        sys.exit(130)


def _take_unknown(options: argparse.Namespace, unknown: Sequence[str]) -> dict[str, str | None]:
    if unknown and options.command in ("submit", "script", "resume"):
        return sbatch.take_unknown(unknown, sbatch.of_this_site())
    raise UsageError(
        unknown[0] if unknown else "--",
        f"ringtune-slurm {options.command} takes no such argument",
        todo=f"see ringtune-slurm {options.command} --help",
    )


def _sbatch(options: argparse.Namespace) -> dict[str, str | None]:
    return dict(getattr(options, "sbatch", None) or {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ringtune-slurm",
        description="Submit a fine-tuning run to SLURM once; it requeues itself until it has finished.",
        epilog="tab completion: ringtune-slurm completion bash|zsh|tcsh",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    submit = _add(
        commands,
        "submit",
        "submit a run, or a sweep, and print the job's id",
        _submit,
        usage="%(prog)s [sbatch's options] [options] -- ARGUMENTS OF ringtune-train",
    )
    submit.add_argument(
        "--dry-run", action="store_true", help="show the script and what would be written; submit nothing"
    )
    script = _add(
        commands,
        "script",
        "print the batch script and submit nothing",
        _script,
        usage="%(prog)s [sbatch's options] [options] -- ARGUMENTS OF ringtune-train",
    )
    for each in (submit, script):
        _add_description(each)
        sbatch.add_to(each)
    status = _add(commands, "status", "show how runs are doing", _status)
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
    logs = _add(commands, "logs", "show the log of a run's jobs", _logs)
    logs.add_argument("target", metavar="RUN|JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing until the run is over")
    logs.add_argument("--rank", type=int, metavar="R", help="only this rank's own output")
    cancel = _add(commands, "cancel", "cancel a run's job", _cancel)
    cancel.add_argument("targets", nargs="+", metavar="RUN|JOB")
    resume = _add(
        commands,
        "resume",
        "submit a run again; it goes on from its newest checkpoint",
        _resume,
        usage="%(prog)s RUN|JOB [sbatch's options]",
    )
    resume.add_argument("target", metavar="RUN|JOB")
    for each in (submit, resume):
        each.add_argument(
            "--no-test", action="store_true", help="do not ask sbatch first whether the cluster could ever run it"
        )
    sbatch.add_to(resume)
    wait = _add(commands, "wait", "wait until runs are over", _wait)
    wait.add_argument("targets", nargs="+", metavar="RUN|JOB")
    wait.add_argument("--timeout", type=float, metavar="S", help="give up after so many seconds")
    table = _add(commands, "table", "compare the runs of a sweep: mean and deviation over seeds", _table)
    table.add_argument("folder", type=Path, metavar="DIR")
    table.add_argument("--json", action="store_true", help="for programs")
    completion = _add(commands, "completion", "print tab completion", lambda options: _complete(parser, options.shell))
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add(commands: Any, name: str, help: str, run: Any, usage: str | None = None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", usage=usage, epilog=_EPILOG, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


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
    parser.add_argument("--launcher", choices=LAUNCHERS, help="what starts the ranks in the job (default: srun)")
    parser.add_argument("--controller", choices=("mpi", "gloo"), help="default: the launcher's, for srun gloo")
    parser.add_argument(
        "--max-requeues",
        type=int,
        default=Limits.max_requeues,
        metavar="N",
        help=f"requeue so often at most ({Limits.max_requeues})",
    )
    parser.add_argument(
        "--max-tries",
        type=int,
        default=Limits.max_tries,
        metavar="N",
        help=f"give up after so many starts in a row without a step more ({Limits.max_tries})",
    )
    parser.add_argument("--no-doctor", action="store_true", help="do not look at the nodes before the ranks start")


# The commands


def _job(options: argparse.Namespace) -> Any:
    from ringtune.slurm import profile, submit

    if not options.train:
        raise UsageError(
            "--",
            "there are no arguments of ringtune-train",
            legal="ringtune-slurm submit --time 1:00:00 -- --model_name_or_path …",
        )
    for name, value in (("--max-requeues", options.max_requeues), ("--max-tries", options.max_tries - 1)):
        if value < 0:
            raise UsageError(name, "it is too small", legal="--max-requeues from 0, --max-tries from 1")
    return submit.make_job(
        submit.Request(
            train=options.train,
            sbatch=_sbatch(options),
            profile=profile.load(options.profile),
            sweep=options.sweep,
            launcher=options.launcher,
            controller=options.controller,
            limits=Limits(options.max_requeues, options.max_tries),
            examined=not options.no_doctor,
        )
    )


def _script(options: argparse.Namespace) -> int:
    from ringtune.slurm import script

    print(script.text(_job(options)), end="")
    return EXIT_FINISHED


def _submit(options: argparse.Namespace) -> int:
    from ringtune.slurm import script, submit, sweep

    job = _job(options)
    if options.dry_run:
        print(script.text(job), end="")
        for settings in sweep.expand(job.axes):
            print(f"would be submitted: {Path(job.folder) / sweep.folder_name(settings)}", file=sys.stderr)
        return EXIT_FINISHED
    job_id = submit.submit(job, options.argv, tested=not options.no_test)
    print(
        f"{job.folder}: submitted; try next:\n  ringtune-slurm status {job_id}\n  ringtune-slurm logs -f {job_id}",
        file=sys.stderr,
    )
    print(job_id)
    return EXIT_FINISHED


def _runs(targets: Sequence[str]) -> list[Path]:
    from ringtune.slurm import index

    return list(dict.fromkeys(run for target in targets for run in index.find(target))) if targets else index.latest()


def _status(options: argparse.Namespace) -> int:
    from ringtune.slurm import status

    found = status.look(_runs(options.targets), stalled_after_s=options.stalled_after)
    if options.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
    elif found:
        print(status.table(found))
    else:
        print("no job was submitted from here yet", file=sys.stderr)
    return EXIT_FINISHED


def _logs(options: argparse.Namespace) -> int:
    from ringtune.slurm import logs

    runs = _runs([options.target])
    if len(runs) > 1:
        raise UsageError(
            options.target, f"it is a sweep of {len(runs)} runs", legal="one run", todo=f"name one, such as {runs[0]}"
        )
    logs.show(runs[0], rank=options.rank, follow=options.follow)
    return EXIT_FINISHED


def _cancel(options: argparse.Namespace) -> int:
    from ringtune.slurm import queue, record, status

    alive = [each for each in status.look(_runs(options.targets)) if not each.is_over]
    if not alive:
        print("nothing to cancel: every run is over", file=sys.stderr)
        return EXIT_FINISHED
    try:
        queue.cancel([each.job_id for each in alive])
    except queue.SlurmError as error:
        raise UsageError("scancel", str(error), legal="a job of yours", todo="see ringtune-slurm status") from None
    for each in alive:
        record.Record(Path(each.run)).add(record.CANCELLED, reason="cancelled by ringtune-slurm cancel")
        print(
            f"{each.run}: job {each.job_id} cancelled at step {each.step}; ringtune-slurm resume goes on from its newest checkpoint"
        )
    return EXIT_FINISHED


def _resume(options: argparse.Namespace) -> int:
    from ringtune.slurm import submit

    runs = submit.unfinished(_runs([options.target]))
    if not runs:
        print(f"{options.target}: finished already", file=sys.stderr)
        return EXIT_FINISHED
    words = [f"--{name}" + ("" if value is None else f"={value}") for name, value in _sbatch(options).items()]
    print(submit.resume(runs, words, tested=not options.no_test))
    return EXIT_FINISHED


def _wait(options: argparse.Namespace) -> int:
    from ringtune.slurm import status

    runs = _runs(options.targets)
    began = time.monotonic()
    shown = ""
    while True:
        found = status.look(runs)
        words = status.summary(found)
        if words != shown:
            print(words, file=sys.stderr, flush=True)
            shown = words
        if all(each.is_over for each in found):
            return EXIT_FINISHED if all(each.state == status.COMPLETED for each in found) else EXIT_FAILED
        if options.timeout is not None and time.monotonic() - began > options.timeout:
            raise UsageError(
                "--timeout", f"not over after {options.timeout:g} s", todo="wait longer, or see ringtune-slurm status"
            )
        time.sleep(2.0)


def _table(options: argparse.Namespace) -> int:
    from ringtune.slurm import results

    rows = results.collect(options.folder)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else results.table(rows))
    return EXIT_FINISHED


def _complete(parser: argparse.ArgumentParser, shell: str) -> int:
    import shtab

    print(shtab.complete(parser, shell))
    return EXIT_FINISHED


if __name__ == "__main__":
    main()
