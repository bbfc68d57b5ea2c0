"""Print what a change that claims no numeric effect must leave as it is: ``python benchmarks/fingerprint.py``.

The demo of the README with two ranks in fast mode: the loss of each of its 282 steps, the scores, the final parameters.
The first steps of the same demo in bf16, and in exact mode at 1, 2 and 4 ranks. A prediction of 10,000 rows by the
demo's model at 2 ranks: the bytes of the file. ``--write FILE`` keeps the result, ``--compare FILE`` ends with exit
code 1 and names what differs. Bits depend on the processor and the torch build: compare only what one machine has
printed.

It uses the commands alone, so that it runs on an earlier commit as well: ``--commands FOLDER`` names the folder with
that commit's ``ringtune-train`` and ``ringtune-predict``. The whole demo and the exact runs compute in fp32, because
bf16 takes an hour on a processor without instructions for it. About fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.launch.demo import MIXED_FILE, fetch
from ringtune.launch.verify import rank_environment
from ringtune.train.contract import cache_folder
from safetensors.numpy import load_file

CONFIG = Path(__file__).with_name("demo.yaml")
EXACT_STEPS = 12
BF16_STEPS = 3
NUM_PREDICTED = 10_000


def run(commands: Path, size: int, command: str, **flags: object) -> None:
    """Run a command on ``size`` ranks of one thread each; show what it printed if it fails."""
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    argv = [str(commands / "mpirun"), "-np", str(size), "--bind-to", "none", str(commands / command), *words]
    env = {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout}")


def parameters_sha256(folder: Path) -> str:
    """Return one sha256 over names, shapes and bytes of a model's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


def records(folder: Path, event: str) -> list[dict[str, Any]]:
    """Return a run's metrics of one kind."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["event"] == event]


def measure(commands: Path, folder: Path) -> dict[str, Any]:
    """Return the fingerprint. ``folder`` takes what the commands write."""
    demo = fetch(cache_folder())
    settings = {
        "config": CONFIG,
        "report_to": "none",
        "logging_steps": 1,
        "model_name_or_path": demo / "model",
        "train_file": demo / "train.csv",
        "validation_file": demo / "dev.csv",
        "cache_dir": folder / "cache",
    }
    fast = folder / "fast"
    run(commands, 2, "ringtune-train", **settings, output_dir=fast, bf16="false")
    evaluations = [
        {name: value for name, value in each.items() if name.startswith("eval_")} for each in records(fast, "eval")
    ]
    result: dict[str, Any] = {
        "losses": [each["loss"] for each in records(fast, "train")],
        "grad_norms": [each["grad_norm"] for each in records(fast, "train")],
        "evaluations": evaluations,
        "fast, 2 ranks": parameters_sha256(fast),
    }
    short = {**settings, "max_eval_samples": 64}
    bf16 = folder / "bf16"
    run(commands, 2, "ringtune-train", **short, output_dir=bf16, bf16="true", max_steps=BF16_STEPS)
    result["fast, bf16, 2 ranks"] = parameters_sha256(bf16)
    for size in (1, 2, 4):
        exact = folder / f"exact-{size}"
        exact_settings = {"mode": "exact", "bf16": "false", "max_steps": EXACT_STEPS}
        run(commands, size, "ringtune-train", **short, **exact_settings, output_dir=exact)
        result[f"exact, {size} rank(s)"] = parameters_sha256(exact)
    rows, output = folder / "rows.csv", folder / "predicted.jsonl"
    first_rows(demo / MIXED_FILE, rows)
    run(commands, 2, "ringtune-predict", model_name_or_path=fast, input=rows, output=output, bf16="false")
    result["prediction"] = hashlib.sha256(output.read_bytes()).hexdigest()
    return result


def first_rows(source: Path, target: Path) -> None:
    """Write the first NUM_PREDICTED rows of a CSV file to another."""
    with source.open(newline="", encoding="utf-8") as read, target.open("w", newline="", encoding="utf-8") as write:
        writer = csv.writer(write)
        for number, row in enumerate(csv.reader(read)):
            if number > NUM_PREDICTED:
                break
            writer.writerow(row)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of what is not the same. **Pure.**"""
    return [name for name in (*before, *(now.keys() - before.keys())) if before.get(name) != now.get(name)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="JSON file to keep the fingerprint in")
    parser.add_argument("--compare", type=Path, help="JSON file of an earlier fingerprint")
    parser.add_argument(
        "--commands", type=Path, default=Path(sysconfig.get_path("scripts")), help="folder of the commands to run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(options.commands, Path(temporary))
    for name, value in found.items():
        print(name, value if isinstance(value, str) else f"{len(value)} values, {json.dumps(value[-1])} the last")
    if options.write:
        options.write.write_text(json.dumps(found, indent=1) + "\n")
    if options.compare:
        differing = differences(json.loads(options.compare.read_text()), found)
        print(f"differs: {', '.join(differing)}" if differing else f"the same as {options.compare}")
        sys.exit(bool(differing))
