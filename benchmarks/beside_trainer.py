"""What ringtune-train learns beside transformers' Trainer: ``beside_trainer.py --kind token_classification --seeds 3``.

The same rows, model and settings, a run for each seed by each of the two; one rank without a launcher. The rows are
written for the purpose (``beside_rows.py``), the Trainer side has the logic of transformers' examples and imports
nothing of ringtune (``beside_parts.py``). What is masked of the validation rows is drawn, so the models of both sides
are scored there by the same draw. The means should differ by no more than chance explains: 19 times in
20, by Student's t for two samples. Exit code 1 if they do; with few seeds, look at more of them first.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import beside_rows
import speed
from scipy.stats import t

PARTS = Path(__file__).with_name("beside_parts.py")


@dataclass(frozen=True)
class Kind:
    """What is compared of a kind of task."""

    write: Callable[[Path, int, int], None]  # rows into a file: their number, a seed
    ending: str  # of the files
    score: str  # of ringtune's last evaluation
    flags: Sequence[str] = ()  # of ringtune-train
    num_rows: int = 1600
    num_train_epochs: int = 10
    scored_alike: bool = False  # both by the Trainer side, not by ringtune's last evaluation


KINDS = {
    "token_classification": Kind(beside_rows.write_tags, "json", "eval_f1"),
    "question_answering": Kind(beside_rows.write_questions, "json", "eval_f1", ("--task", "question_answering")),
    "multiple_choice": Kind(beside_rows.write_endings, "csv", "eval_accuracy", ("--task", "multiple_choice")),
    "masked_lines": Kind(
        beside_rows.write_text,
        "txt",
        "eval_loss",
        ("--task", "masked_lm", "--line_by_line", "true"),
        scored_alike=True,
    ),
    "masked_joined": Kind(
        beside_rows.write_text,
        "txt",
        "eval_loss",
        ("--task", "masked_lm"),
        num_rows=6400,
        num_train_epochs=40,
        scored_alike=True,
    ),
}
NUM_DEV_ROWS = 400
BATCH, RATE = 16, 1e-3
LENGTH = 64


def main() -> None:
    """Train, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=["token_classification"])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="from 42 on")
    parser.add_argument(
        "--side", choices=("both", "trainer"), default="both", help="trainer: that side alone, as a check"
    )
    options = parser.parse_args()
    seeds = [42 + number for number in range(options.seeds)]
    alike = True
    for name in options.kind:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary) / "work"
            found = {"Trainer": of_trainer(prepare(place, KINDS[name]), name, seeds)}
            if options.side == "both":
                found["ringtune"] = of_ringtune(place, name, seeds)
        for who, scores in found.items():
            print(f"{name}, {KINDS[name].score}, {who}: {described(scores)}", flush=True)
        if options.side == "both":
            line, within = judged(found["ringtune"], found["Trainer"])
            print(f"{name}: {line}", flush=True)
            alike = alike and within
    sys.exit(0 if alike else 1)


def prepare(place: Path, kind: Kind) -> Path:
    """Write model and rows into a folder, and return it."""
    beside_rows.write_model(place / "model")
    kind.write(place / f"train.{kind.ending}", kind.num_rows, 1)
    kind.write(place / f"dev.{kind.ending}", NUM_DEV_ROWS, 2)
    return place


def of_trainer(place: Path, name: str, models: Sequence[object]) -> list[float]:
    """Return the scores by the Trainer side. models: for each a seed to train with, or the folder of a trained one."""
    settings = {"global_batch_size": BATCH, "learning_rate": RATE, "num_train_epochs": KINDS[name].num_train_epochs}
    command = [sys.executable, str(PARTS), name, str(place), json.dumps(settings), *map(str, models)]
    return list(json.loads(output_of(command).splitlines()[-1]))


def of_ringtune(place: Path, name: str, seeds: Sequence[int]) -> list[float]:
    """Return the scores of ringtune's models."""
    kind = KINDS[name]
    folders = [train(place, kind, seed) for seed in seeds]
    if kind.scored_alike:
        return of_trainer(place, name, folders)
    return [last_evaluation(folder, kind.score) for folder in folders]


def train(place: Path, kind: Kind, seed: int) -> Path:
    """Train a model of ringtune's and return its folder."""
    folder = place / f"ringtune-{seed}"
    settings: dict[str, Any] = {
        "model_name_or_path": place / "model",
        "train_file": place / f"train.{kind.ending}",
        "validation_file": place / f"dev.{kind.ending}",
        "output_dir": folder,
        "cache_dir": place / "cache",
        "seed": seed,
        "global_batch_size": BATCH,
        "learning_rate": RATE,
        "num_train_epochs": kind.num_train_epochs,
        "max_seq_length": LENGTH,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": "true",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    output_of([sys.executable, "-m", "ringtune.train.cli", *words, *kind.flags])
    return folder


def last_evaluation(folder: Path, score: str) -> float:
    """Return a score of a run's last evaluation."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float(next(each[score] for each in reversed(records) if each["event"] == "eval"))


def output_of(command: list[str]) -> str:
    """Run a command with one thread and return what it printed; end with its last lines if it fails."""
    done = subprocess.run(command, env=speed.environment(), capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        sys.exit(
            f"{' '.join(command[:4])} ...: exit code {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def described(scores: Sequence[float]) -> str:
    """Return scores, their mean and deviation, for people. **Pure.**"""
    shown = " ".join(f"{each:.4f}" for each in scores)
    return f"{shown}; mean {statistics.fmean(scores):.4f}, deviation {deviation(scores):.4f}"


def deviation(scores: Sequence[float]) -> float:
    """Return the sample deviation, 0 for one score. **Pure.**"""
    return statistics.stdev(scores) if len(scores) > 1 else 0.0


def judged(mine: Sequence[float], theirs: Sequence[float]) -> tuple[str, bool]:
    """Return the difference of two means beside their spread, in words, and whether it lies within. **Pure.**"""
    difference = statistics.fmean(mine) - statistics.fmean(theirs)
    if len(mine) < 2:
        return f"difference {difference:+.4f}; one seed has no spread", True
    error = math.sqrt((deviation(mine) ** 2 + deviation(theirs) ** 2) / len(mine))
    bound = float(t.ppf(0.975, 2 * len(mine) - 2)) * error
    within = abs(difference) <= bound
    line = f"difference {difference:+.4f}, standard error {error:.4f}, 95 % of the time below {bound:.4f}"
    return f"{line}: {'within' if within else 'OUTSIDE'}", within


if __name__ == "__main__":
    main()
