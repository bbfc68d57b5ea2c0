"""Start a command many times, quickly: in forks of one process that has imported everything, on one rank."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import horovod.torch  # noqa: F401
import ringtune.train.predict.run
import ringtune.train.run
import torch.utils.tensorboard  # noqa: F401
import transformers  # noqa: F401
from ringtune.train import config, rank
from ringtune.train.contract import read_records
from ringtune.train.predict import config as predict_config
from transformers import BertForSequenceClassification, BertTokenizerFast  # noqa: F401

CLOCKS = ("samples_per_s", "tokens_per_s", "rank_balance", "comm_s", "peak_memory_gib")


def start(command: str, flags: dict[str, str], output: Path, before: Callable[[], object] = int) -> tuple[int, str]:
    """Run "train" or "predict" in a process of its own; return its exit code, or signal, and what it printed.

    output: file for what it prints. before: called in the new process.
    """
    process = os.fork()
    if not process:
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        before()
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        if command == "train":
            rank.main("ringtune-train", lambda: config.parse(words), lambda: ringtune.train.run.run)
        rank.main("ringtune-predict", lambda: predict_config.parse(words), lambda: ringtune.train.predict.run.run)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def digest(path: Path) -> str:
    """Return the sha256 of a file, "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def result(command: str, flags: dict[str, str]) -> dict:
    """Return what a command left: weights, moments, curve and names of checkpoints, or the output."""
    if command == "predict":
        return {"output": digest(Path(flags["output"]))}
    run = Path(flags["output_dir"])
    records = read_records(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    names = ("model.safetensors", f"checkpoint-{flags['max_steps']}/optimizer.safetensors")
    digests = {name: digest(run / name) for name in names}
    curve = [{name: value for name, value in each.items() if name not in CLOCKS} for each in records]
    best = os.readlink(run / "best") if (run / "best").is_symlink() else ""
    return {**digests, "curve": curve, "best": best, "all": sorted(each.name for each in run.glob("checkpoint-*"))}
