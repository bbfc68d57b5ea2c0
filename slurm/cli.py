"""The command ``ringtune-slurm``; imports neither torch nor horovod, so that it answers at once on a login node."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringtune.slurm import options as sbatch
from ringtune.slurm.parser import TAKE_SBATCH, make_parser
from ringtune.slurm.script import RetryLimits
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_USAGE, UsageError, output_may_be_closed


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-slurm`` and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        with output_may_be_closed(EXIT_FINISHED):
            options, unknown = make_parser().parse_known_args(words[:cut])
            options.train, options.argv = words[cut + 1 :], words
            if unknown or (options.train and options.command not in ("submit", "script")):
                options.sbatch = {**_sbatch(options), **_take_unknown(options, unknown)}
            sys.exit(COMMANDS[options.command](options))
    except UsageError as error:
        print(f"ringtune-slurm: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(130)


def _take_unknown(options: argparse.Namespace, unknown: Sequence[str]) -> dict[str, str | None]:
    if unknown and options.command in TAKE_SBATCH:
        return sbatch.take_unknown(unknown, sbatch.of_this_site(), options.parser.known())
    raise options.parser.unknown(unknown or ["--"])


def _sbatch(options: argparse.Namespace) -> dict[str, str | None]:
    return dict(getattr(options, "sbatch", None) or {})


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
        submit.Submission(
            train=options.train,
            sbatch=_sbatch(options),
            profile=profile.load(options.profile),
            sweep=options.sweep,
            search=options.search,
            trials=options.trials,
            pruning=options.pruning,
            launcher=options.launcher,
            controller=options.controller,
            limits=RetryLimits(options.max_requeues, options.max_tries),
            examined=not options.no_doctor,
        )
    )


def _script(options: argparse.Namespace) -> int:
    from ringtune.slurm import script

    print(script.text(_job(options)), end="")
    return EXIT_FINISHED


def _submit(options: argparse.Namespace) -> int:
    from ringtune.slurm import script, submit

    job = _job(options)
    words = submit.after(options.after, job.sbatch)
    if options.dry_run:
        runs = submit.run_folders(job)
        if words:
            print(f"by sbatch {' '.join(words)}", file=sys.stderr)
        print(script.text(job), end="")
        tasks = submit.tasks_of(job, len(runs))
        for run in runs if tasks is None else [runs[task] for task in tasks]:
            print(f"would be submitted: {run}", file=sys.stderr)
        return EXIT_FINISHED
    job_id = submit.submit(job, options.argv, words, tested=not options.no_test)
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
        print(status.status_table(found))
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
            f"{each.run}: job {each.job_id} cancelled at step {each.step}; "
            "ringtune-slurm resume goes on from its newest checkpoint"
        )
    return EXIT_FINISHED


def _resume(options: argparse.Namespace) -> int:
    from ringtune.slurm import resume
    from ringtune.slurm.record import unfinished

    runs = unfinished(_runs([options.target]))
    if not runs:
        print(f"{options.target}: finished already", file=sys.stderr)
        return EXIT_FINISHED
    words = [f"--{name}" + ("" if value is None else f"={value}") for name, value in _sbatch(options).items()]
    print(resume.resume(runs, words, tested=not options.no_test))
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
    from ringtune.slurm.results import axes_of
    from ringtune.train import results

    axes = axes_of(options.folder)
    rows = results.collect(options.folder, axes)
    best = results.best_trial(options.folder, axes)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print("\n".join([results.results_table(rows), *([best] if best else [])]))
    return EXIT_FINISHED


def _completion(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(make_parser(), options.shell))
    return EXIT_FINISHED


COMMANDS = {
    "submit": _submit,
    "script": _script,
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "resume": _resume,
    "wait": _wait,
    "table": _table,
    "completion": _completion,
}


if __name__ == "__main__":
    main()
