"""What a model still knows of old rows when it has learnt new ones: ``keep_learning.py classes|texts [--seeds 42 43]``.

Real rows: sentences of movie reviews, which are negative or positive, and then, for ``classes``, tweets and sentences
of editorials that are to be told apart: two classes more; for ``texts``, product reviews that are negative or positive.
Every way to go on starts from the same run and has every new row twice; with replayed rows there are more steps.
Results go to ``benchmarks/results/keep-learning-PROCESSOR.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import speed
from ringtune.launch.demo import DATA_PIN, OTHER_FILES, fetch, read_ratings
from ringtune.launch.packages import download
from ringtune.train.contract import cache_folder

DEV_ROWS = 400  # of each kind
#: Flags of each way to go on; OLD stands for the run before.
WAYS: dict[str, dict[str, object]] = {
    "new rows alone": {},
    "--keep_close 1": {"keep_close": 1},
    "--keep_answers 1": {"keep_answers": 1},
    "--replay 0.2": {"replay": "OLD=0.2"},
    "--replay 0.5": {"replay": "OLD=0.5"},
    "--replay 0.2 --keep_close 1": {"replay": "OLD=0.2", "keep_close": 1},
    "--replay 0.2 --keep_answers 1": {"replay": "OLD=0.2", "keep_answers": 1},
}
Rows = list[tuple[str, str, str]]  # text, label, "old" or "new"


def write(path: Path, rows: Rows) -> Path:
    """Write rows to a file."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label", "rows"))
        writer.writerows(rows)
    return path


def read(path: Path) -> Rows:
    """Return rows of movie reviews."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [(row["text"], row["label"], "old") for row in csv.DictReader(stream)]


def new_rows(folder: Path, work: str) -> Rows:
    """Return product reviews, or tweets and sentences of editorials in turn, in the order of their files."""
    sdist = download(DATA_PIN, folder / "data", source=True)
    if work == "texts":
        rated = read_ratings(sdist, OTHER_FILES[0])
        return [(text, "positive" if rating > 0 else "negative", "new") for text, rating in rated]
    named = {"editorial": OTHER_FILES[1], "tweet": OTHER_FILES[2]}
    parts = [[(text, name, "new") for text, _ in read_ratings(sdist, file)] for name, file in named.items()]
    return [row for pair in zip(*parts, strict=False) for row in pair]


def train(folder: Path, seed: int, flags: Mapping[str, object]) -> dict[str, float]:
    """Return the accuracy of old and new rows at the end."""
    settings = {
        "output_dir": folder,
        "seed": seed,
        "global_batch_size": 32,
        "learning_rate": 1e-4,
        "num_train_epochs": 2,
        "max_seq_length": 64,
        "slice_by": "rows",
        "report_to": "none",
        "disable_tqdm": "true",
        **flags,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "ringtune.train.cli", *words]
    subprocess.run(command, env=speed.environment(), check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = next(each["scores"] for each in reversed(records) if each["event"] == "slices")
    return {name: each["accuracy"] for name, each in scores.items()}


def go_on(place: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return the accuracies before, and those of each way to go on."""
    old = place / f"old-{seed}"
    start = {"model_name_or_path": fetch(cache_folder()) / "model", "train_file": place / "old.csv"}
    found = {"before": train(old, seed, {**start, "validation_file": place / "old_dev.csv"})}
    files = {"init_from": old, "train_file": place / "new.csv", "validation_file": place / "dev.csv"}
    for number, (way, flags) in enumerate(WAYS.items()):
        named = {name: str(value).replace("OLD", str(old)) for name, value in flags.items()}
        found[way] = train(place / f"{number}-{seed}", seed, {**files, **named})
        print(f"seed {seed}, {way}: {found[way]}", flush=True)
    return found


def table(runs: Iterable[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the mean accuracies over the seeds, a line for each way. **Pure.**"""
    runs = list(runs)
    lines = [f"{'way':32}{'old rows':>10}{'new rows':>10}"]
    for way in runs[0]:
        cells = []
        for rows in ("old", "new"):
            values = [run[way][rows] for run in runs if rows in run[way]]
            cells.append(f"{100 * statistics.fmean(values):>9.1f}%" if values else f"{'-':>10}")
        lines.append(f"{way:32}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("classes", "texts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--rows", type=int, default=2400, help="old rows to train on; of the new ones half as many")
    options = parser.parse_args()
    machine = speed.run([sys.executable, str(speed.PARTS), "machine"])
    demo = fetch(cache_folder())
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        new, old_dev = new_rows(place, options.work), read(demo / "dev.csv")[:DEV_ROWS]
        write(place / "old.csv", read(demo / "train.csv")[: options.rows])
        write(place / "old_dev.csv", old_dev)
        write(place / "dev.csv", [*old_dev, *new[:DEV_ROWS]])
        write(place / "new.csv", new[DEV_ROWS : DEV_ROWS + options.rows // 2])
        runs = [go_on(place, seed) for seed in options.seeds]
    print(table(runs))
    path = speed.results_path("keep-learning", machine)
    speed.keep(path, f"{options.work}, {options.rows} rows", {"machine": machine, "seeds": options.seeds, "runs": runs})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
