"""What the tests share: a tiny real model, real rows, and a way to start real ranks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from cluster.hosts import Cluster, missing
from cluster.slurm import Slurm, missing_packages
from filelock import FileLock
from hypothesis import settings
from ringtune.launch.demo import fetch
from ringtune.launch.session_folders import remove_left_behind
from ringtune.launch.verify import rank_environment
from ringtune.train.contract import cache_folder

# Hypothesis gives an example 200 ms by default, except in CI; no test should depend on how busy the machine is.
settings.register_profile("ringtune", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("ringtune")

# What Open MPI chooses here by itself, after a second of looking for networks of other kinds at every start.
os.environ.setdefault("OMPI_MCA_btl", "self,sm,tcp")

pytest_plugins = ["cluster.desk"]  # fixtures of several test files
ROOT = Path(__file__).parents[1]
FAULTS = Path(__file__).parent / "faults.py"
PREDICT_FAULTS = Path(__file__).parent / "predict_faults.py"
RANKS_LIMIT_S = 240


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    output: str  # stdout and stderr as they came


def run_command(command: Sequence[str], *, limit_s: int = RANKS_LIMIT_S, env: dict[str, str] | None = None) -> Done:
    """Run a command in a process group of its own, which is killed when the time is up."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**rank_environment(os.environ), "OMP_NUM_THREADS": "1", **(env or {})},
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"no end after {limit_s} s: {' '.join(command)}\n{output}")
    return Done(process.returncode, output)


def script(name: str) -> str:
    """Return the path of one of the environment's commands."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def ranks(size: int, *words: str, limit_s: int = RANKS_LIMIT_S, env: dict[str, str] | None = None) -> Done:
    """Run a Python program on ``size`` ranks under mpirun; size 0 means without any launcher."""
    launcher = [script("mpirun"), "-np", str(size), "--bind-to", "none"] if size else []
    return run_command([*launcher, sys.executable, *words], limit_s=limit_s, env=env)


def flag_words(flags: Mapping[str, object]) -> list[str]:
    """Return the words of a command line; a flag whose value is None is left out."""
    return [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]


def predict(
    size: int,
    model: Path,
    rows: Path | str,
    output: Path,
    *,
    gloo: bool = False,
    fault: Sequence[str] = (),
    limit_s: int = RANKS_LIMIT_S,
    **flags: object,
) -> Done:
    """Run ringtune-predict on ``size`` ranks under mpirun or, with ``gloo``, horovodrun; size 0 means no launcher."""
    settings = {"model_name_or_path": model, "input": rows, "output": output, **flags}
    words = flag_words(settings)
    program = [str(PREDICT_FAULTS), *fault, "--", *words]
    if not gloo:
        return ranks(size, *program, limit_s=limit_s)
    launcher = [script("horovodrun"), "--gloo", "-np", str(size)]
    return run_command([*launcher, sys.executable, *program], limit_s=limit_s)


@dataclass(frozen=True)
class Workshop:
    """A tiny model and rows to train it on, and the command that does."""

    model: Path
    rows: Path
    dev: Path
    cache: Path

    def arguments(self, output_dir: Path, **changes: object) -> list[str]:
        """Return the flags of a small run; keywords change or add some, None takes one out."""
        flags: dict[str, object] = {
            "model_name_or_path": self.model,
            "train_file": self.rows,
            "validation_file": self.dev,
            "output_dir": output_dir,
            "cache_dir": self.cache,
            "global_batch_size": 12,
            "learning_rate": 1e-3,
            "max_steps": 12,
            "logging_steps": 1,
            "max_seq_length": 32,
            "report_to": "none",
            "log_row_ids": "true",
            "num_threads": 1,
            "save_total_limit": None,
            **changes,
        }
        return flag_words(flags)

    def train(
        self, size: int, output_dir: Path, *, kill_at: int | None = None, fault: Sequence[str] = (), **changes: object
    ) -> Done:
        """Train on ``size`` ranks; ``kill_at`` makes every rank SIGKILL itself once that many steps are done."""
        faults = [*fault, *(["kill", str(kill_at)] if kill_at is not None else [])]
        return ranks(size, str(FAULTS), *faults, "--", *self.arguments(output_dir, **changes))


def short_demo(output_dir: Path, mode: str = "exact") -> list[str]:
    """Return a command that takes two steps of the demo: its real model, rows and settings."""
    demo = fetch(cache_folder())
    flags = {
        "config": ROOT / "benchmarks" / "demo.yaml",
        "mode": mode,
        "num_shards": 2,
        "max_steps": 2,
        "logging_steps": 1,
        "global_batch_size": 8,
        "max_train_samples": 64,
        "max_eval_samples": 50,
        "bf16": "false",
        "report_to": "none",
        "model_name_or_path": demo / "model",
        "train_file": demo / "train.csv",
        "validation_file": demo / "dev.csv",
        "output_dir": output_dir,
        "cache_dir": output_dir.parent / "cache",
    }
    return [script("ringtune-train"), *flag_words(flags)]


def curve(output_dir: Path) -> list[float]:
    """Return loss and norm of the gradient of every step, then the scores of the evaluations.

    The norm, because clipping and AdamW hide from the loss a gradient that is wrong by a factor.
    """
    steps = [each[name] for each in records(output_dir, "train") for name in ("loss", "grad_norm")]
    return steps + [each[name] for each in records(output_dir, "eval") for name in ("eval_loss", "eval_accuracy")]


def records(output_dir: Path, event: str) -> list[dict]:
    """Return a run's metrics of one kind, without those that measure time or memory."""
    clocks = ("samples_per_s", "tokens_per_s", "rank_balance", "comm_s", "peak_memory_gib")
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in each.items() if k not in clocks} for each in lines if each["event"] == event]


def digests(output_dir: Path, step: int) -> dict[str, str]:
    """Return the sha256 of all parameters, or those of an adapter, and of all moments in a checkpoint."""
    manifest = json.loads((output_dir / f"checkpoint-{step}" / "manifest.json").read_text())
    names = ("model.safetensors", "adapter_model.safetensors", "optimizer.safetensors")
    return {name: manifest[name]["sha256"] for name in names if name in manifest}


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that gives the folder of a name, filled by the first process of the tests that asks for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # each worker has a folder of its own in it

    def once(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture(autouse=True)
def _nothing_of_killed_launchers() -> None:
    """Tests kill launchers; process ids come round again in a run of all tests (by default there are 32,768)."""
    remove_left_behind()


@pytest.fixture(scope="session")
def workshop(make_once) -> Iterator[Workshop]:
    folder = make_once("workshop", tiny.write)
    files = [each for each in folder.rglob("*") if each.is_file() and "cache" not in each.parts]
    before = {each: each.stat().st_mtime_ns for each in files}
    yield Workshop(folder / "model", folder / "rows.csv", folder / "dev.csv", folder / "cache")
    # Another process of the tests may be reading them: a test that wants other rows writes files of its own.
    assert before == {each: each.stat().st_mtime_ns for each in files}, "a test wrote to what all tests share"


@pytest.fixture(scope="session")
def reference(workshop: Workshop, make_once) -> Callable[..., Path]:
    """Return a function that gives the folder of an uninterrupted run, made once for each set of flags."""

    def run(size: int, **changes: object) -> Path:
        def train(folder: Path) -> None:
            done = workshop.train(size, folder / "run", **changes)
            assert done.returncode == 0, done.output

        key = json.dumps([size, changes], sort_keys=True, default=str)
        return make_once(f"reference-{hashlib.sha256(key.encode()).hexdigest()[:16]}", train) / "run"

    return run


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Return a function that starts hosts, removed when the test ends. ``tmp_path`` is the folder that they share."""
    if missing() and not os.environ.get("CI"):
        pytest.skip(f"needs {', '.join(missing())}")
    with ExitStack() as stack:
        yield lambda *names, **options: stack.enter_context(Cluster(*names, shared=tmp_path, **options))


@pytest.fixture
def make_slurm(tmp_path: Path) -> Iterator[Callable[..., Slurm]]:
    """Return a function that starts a SLURM with the named nodes; ``tmp_path`` is the folder that all hosts share."""
    with ExitStack() as stack:

        def make(*nodes: str, accounted: bool = False, **options: Any) -> Slurm:
            absent = missing_packages(accounted=accounted)
            if absent and not os.environ.get("CI"):
                pytest.skip(f"needs {', '.join(absent)}")
            return stack.enter_context(Slurm(*nodes, shared=tmp_path, accounted=accounted, **options))

        yield make
