"""Dev accuracy of the whole demo at 1, 2 and 3 ranks and of three seeds: ``python benchmarks/accuracy.py``."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ringtune.launch.demo import fetch
from ringtune.launch.verify import rank_environment
from ringtune.train.contract import cache_folder

CONFIG = Path(__file__).with_name("demo.yaml")


def run(folder: Path, size: int, seed: int) -> tuple[float, float]:
    """Return dev accuracy and the median of samples/s."""
    demo = fetch(cache_folder())
    flags = {
        "config": CONFIG,
        "output_dir": folder,
        "seed": seed,
        "report_to": "none",
        "model_name_or_path": demo / "model",
        "train_file": demo / "train.csv",
        "validation_file": demo / "dev.csv",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = ["mpirun", "-np", str(size), "--bind-to", "none", sys.executable, "-m", "ringtune.train.cli", *words]
    env = {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = [each["samples_per_s"] for each in records if each["event"] == "train"]
    return records[-1]["eval_accuracy"], statistics.median(speeds)


if __name__ == "__main__":
    print("ranks seed accuracy samples/s")
    with tempfile.TemporaryDirectory() as temporary:
        for size, seed in ((2, 42), (2, 43), (2, 44), (1, 42), (3, 42)):
            accuracy, speed = run(Path(temporary) / f"{size}-{seed}", size, seed)
            print(f"{size:5} {seed:4} {accuracy:8.4f} {speed:9.1f}", flush=True)
