"""All tasks of GLUE in one command: ``ringtune-train glue`` (Wang et al. 2019).

Each task is trained with several seeds, as a sweep over tasks and seeds, here or as a SLURM array, and the scores of
its validation rows stand beside those that transformers' documentation published of bert-base-cased.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence

from ringtune.train import results, series, sweep
from ringtune.train.columns import require_glue_task, split_names
from ringtune.train.config import COMMAND
from ringtune.train.contract import EXIT_FINISHED, EXIT_USAGE, UsageError, refuse_file
from ringtune.train.flags import translate
from ringtune.train.text_names import GLUE_COLUMNS

NAME = "glue"
FIRST_SEED = 42
#: As the published scores were trained; 5 epochs for MRPC and WNLI there.
FLAGS = {"max_seq_length": "128", "global_batch_size": "32", "learning_rate": "2e-5", "num_train_epochs": "3"}
#: Score of each task on its validation rows, and the published one of bert-base-cased, in percent: the README of
#: transformers' examples/pytorch/text-classification. ``_mm``: of MNLI's rows from other sources.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "cola": {"matthews_correlation": 56.53},
    "sst2": {"accuracy": 92.32},
    "mrpc": {"f1": 88.85, "accuracy": 84.07},
    "stsb": {"pearson": 88.64, "spearmanr": 88.48},
    "qqp": {"accuracy": 90.71, "f1": 87.49},
    "mnli": {"accuracy": 83.91, "accuracy_mm": 84.10},
    "qnli": {"accuracy": 90.66},
    "rte": {"accuracy": 65.70},
    "wnli": {"accuracy": 56.34},
}


def main(argv: Sequence[str]) -> int:
    """Run ``ringtune-train glue`` and return its exit code."""
    options, flags = make_parser().parse_known_args(argv)
    try:
        refuse_file(options.output_dir)
        axes = {"task_name": _tasks(options.tasks), "seed": _seeds(options.seeds)}
        flags = [*flags, *_defaults(flags)]
        if options.slurm is not None:
            return _submit(axes, options, flags)
        if options.table:
            series.show(axes, options, table)
            return EXIT_FINISHED
        return series.train_all(axes, options, flags, table)
    except UsageError as error:
        print(f"ringtune-train {NAME}: {error}", file=sys.stderr)
        return EXIT_USAGE


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own options."""
    parser = argparse.ArgumentParser(
        prog=f"ringtune-train {NAME}",
        usage=f"ringtune-train {NAME} --model_name_or_path M [--tasks all] [--seeds 3] FLAGS OF ringtune-train",
        description="Train every task of GLUE with several seeds and show mean and deviation beside the published "
        "score of bert-base-cased. Started again, it goes on with what has not finished.",
        epilog="The rows come from the hub, or with --dataset_name FOLDER from FOLDER/TASK as save_to_disk of datasets "
        "writes them. Unless flags say otherwise, runs are those of the published scores, which had 5 epochs for MRPC "
        "and WNLI: " + ", ".join(f"--{name} {value}" for name, value in FLAGS.items()),
        allow_abbrev=False,
    )
    parser.add_argument("--tasks", default="all", metavar="NAMES", help="all, or names joined by commas")
    parser.add_argument(
        "--seeds", default="3", metavar="N", help="how many seeds from 42 on, or seeds joined by commas"
    )
    parser.add_argument("--table", action="store_true", help="show the table of what has finished, train nothing")
    parser.add_argument("--slurm", metavar="OPTIONS", help="submit a job array with these options of sbatch, in quotes")
    series.add_common(parser, "runs/glue")
    return parser


def _tasks(names: str) -> list[str]:
    tasks = list(GLUE_COLUMNS) if names == "all" else list(split_names(names))
    for task in tasks:
        require_glue_task(task)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UsageError("--tasks", f"{names!r} has {'a name twice' if tasks else 'no name'}", legal="all, or names")
    return tasks


def _seeds(text: str) -> list[str]:
    numbers = [each.strip() for each in text.split(",")]
    wrong = ""
    if not all(re.fullmatch("[0-9]{1,19}", each) for each in numbers):
        wrong = "is no number of seeds"
    elif len(set(map(int, numbers))) < len(numbers):
        wrong = "has a seed twice"  # the same run twice, whose scores deviate by nothing
    elif len(numbers) == 1 and not 1 <= int(text) <= sweep.MOST_RUNS:
        wrong = "is no number of seeds"
    if wrong:
        legal = f"a number from 1 to {sweep.MOST_RUNS}, or seeds such as 1,2,3"
        raise UsageError("--seeds", f"{text[:80]!r} {wrong}", legal=legal)
    if len(numbers) > 1:
        return numbers
    return [str(FIRST_SEED + number) for number in range(int(text))]


def _defaults(flags: Sequence[str]) -> list[str]:
    """Return the flags of the published runs that neither the flags nor their files give. Raises UsageError."""
    given, _ = translate(COMMAND, flags, lambda line: None)  # each run reports it
    if "per_device_train_batch_size" in given:
        given["global_batch_size"] = ""
    return [f"--{name}={value}" for name, value in FLAGS.items() if name not in given]


def _submit(axes: sweep.Axes, options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Become ``ringtune-slurm submit`` of the same runs."""
    words = [f"--sweep={name}={','.join(values)}" for name, values in axes.items()]
    more = ["--dry-run"] if options.dry_run else []
    command = [sys.executable, "-P", "-m", "ringtune.slurm.cli", "submit", *options.slurm.split(), *more, *words]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--", *flags, f"--output_dir={options.output_dir.resolve()}"])


def table(rows: Sequence[results.Row]) -> str:
    """Return a line for each score of each task: mean and deviation over seeds in percent, published. **Pure.**"""
    lines = [["task", "score", "mean", "deviation", "finished", "bert-base-cased, published"]]
    for row in rows:
        task = row.settings["task_name"]
        for score, published in PUBLISHED[task].items():
            mean, deviation = row.scores.get(score, (None, None))
            shown = ["-", "-"] if mean is None or deviation is None else [f"{100 * mean:.2f}", f"{100 * deviation:.2f}"]
            lines.append([task, score, *shown, f"{row.num_finished} of {row.num_runs}", f"{published:.2f}"])
    return results.aligned(lines)
