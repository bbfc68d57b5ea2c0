"""Dev accuracy of the whole demo by ranks and seeds: ``accuracy.py [--ranks 2] [--seeds 42 43] [--flags ...]``.

By default 1, 2 and 3 ranks of one seed, and 2 ranks of two more. Results go to
``benchmarks/results/accuracy-PROCESSOR.json`` under the flags; what it has under others stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import speed
from ringtune.launch.demo import fetch
from ringtune.train.contract import cache_folder

CONFIG = Path(__file__).with_name("demo.yaml")


def run(folder: Path, size: int, seed: int, flags: Sequence[str]) -> dict[str, float]:
    """Return dev accuracy and the median of samples/s."""
    demo = fetch(cache_folder())
    settings = {
        "config": CONFIG,
        "output_dir": folder,
        "seed": seed,
        "report_to": "none",
        "model_name_or_path": demo / "model",
        "train_file": demo / "train.csv",
        "validation_file": demo / "dev.csv",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = ["mpirun", "-np", str(size), "--bind-to", "none", sys.executable, "-m", "ringtune.train.cli"]
    command += [*words, *flags]
    subprocess.run(command, env=speed.environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = [each["samples_per_s"] for each in records if each["event"] == "train"]
    return {
        "ranks": size,
        "seed": seed,
        "accuracy": records[-1]["eval_accuracy"],
        "samples_per_s": statistics.median(speeds),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, help="of all runs; default: 1, 2 and 3, see above")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags for ringtune-train")
    options = parser.parse_args()
    runs = [(options.ranks or 2, seed) for seed in options.seeds]
    if options.ranks is None:
        runs += [(1, options.seeds[0]), (3, options.seeds[0])]
    machine = speed.run([sys.executable, str(speed.PARTS), "machine"])
    found = []
    print("ranks seed accuracy samples/s")
    with tempfile.TemporaryDirectory() as temporary:
        for size, seed in runs:
            found.append(run(Path(temporary) / f"{size}-{seed}", size, seed, options.flags))
            print("{ranks:5} {seed:4} {accuracy:8.4f} {samples_per_s:9.1f}".format(**found[-1]), flush=True)
    accuracies = [each["accuracy"] for each in found]
    print(f"accuracy: mean {statistics.fmean(accuracies):.4f}, {min(accuracies):.4f} to {max(accuracies):.4f}")
    path = speed.results_path("accuracy", machine)
    speed.keep(path, " ".join(options.flags) or "as it is", {"machine": machine, "runs": found})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
