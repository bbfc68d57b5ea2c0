"""Measure ringtune on one GPU beside transformers' Trainer, in the same run: ``benchmarks/gpu.py FOLDER``.

The machine first: matrix products in bf16, TF32 and fp32, and memory bandwidth. Then BERT-base and BERT-large, drawn at
random, in bf16: by ringtune-train, by Trainer's defaults (padded), and by Trainer's best (rows of like length together,
fused AdamW, no attention by cuDNN, which makes a plan for every new shape). Each case writes one JSON file and is left
out if that is there; one that would not end within the time that is left is not begun, and the exit code is 75.

The share of the matrix rate counts the products of forward and backward of real tokens: 6 x parameters behind the
embeddings x tokens, and 12 x layers x hidden size x tokens^2 of each row for attention (Kaplan et al. 2020, "Scaling
Laws for Neural Language Models", section 2.1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_parts import SIZES, Work

PARTS = Path(__file__).with_name("gpu_parts.py")
CASE_LIMIT_S = 150  # what a case may take; more is its failure


WORKS = (
    Work("base", 128, False, 64, 60),
    Work("base", 128, True, 64, 60),
    Work("large", 384, False, 32, 40),
    Work("large", 384, True, 32, 40),
)
TINY = (Work("tiny", 16, True, 8, 12),)
WAYS = ("ringtune", "trainer", "trainer-best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results and models go")
    parser.add_argument("--seconds", type=float, default=3600, help="time there is")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model, on whatever is here")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + options.seconds
    cases: list[tuple[str, Callable[[], dict[str, Any]]]] = [("machine", lambda: in_process("machine"))]
    for work in TINY if options.dry_run else WORKS:
        for way in WAYS:
            cases.append((f"{work.name}-{way}", lambda work=work, way=way: measure(options.folder, work, way)))
    failed = []
    for name, run in cases:
        path = options.folder / f"{name}.json"
        if path.exists():
            continue
        if time.monotonic() + CASE_LIMIT_S > until and not options.dry_run:
            sys.exit(75)
        found = run()
        print(name, json.dumps(found), flush=True)
        if "error" in found:
            failed.append(name)
        else:
            path.write_text(json.dumps({"case": name, **found}, indent=1))
    print(table(options.folder), flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command tries them again")


def in_process(what: str, *words: object) -> dict[str, Any]:
    """Run a part of `gpu_parts` in a process of its own, so that its memory is given back."""
    command = [sys.executable, str(PARTS), what, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CASE_LIMIT_S)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr else f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


# The models


def measure(folder: Path, work: Work, way: str) -> dict[str, Any]:
    """Return rows/s, tokens/s and the share of the matrix rate of one way of doing one piece of work."""
    place = folder / "work" / work.name
    if not (place / "rows.csv").exists():
        in_process("prepare", place, json.dumps(work.__dict__))
    run = train_by_ringtune if way == "ringtune" else train_by_trainer
    found = run(place, work, way)
    if "rows_per_s" in found:
        rate = json.loads((folder / "machine.json").read_text())["bf16_tflops"]
        found["flop_per_row"] = flop_per_row(work, found["tokens_per_row"])
        found["share_of_matrix_rate"] = found["rows_per_s"] * found["flop_per_row"] / (rate * 1e12)
    return found


def flop_per_row(work: Work, tokens: float) -> float:
    """Return the operations of forward and backward of a row in its matrix products. **Pure.**"""
    hidden, layers, _, inner = SIZES[work.size]
    parameters = layers * (4 * hidden * hidden + 2 * hidden * inner)
    return 6 * parameters * tokens + 12 * layers * hidden * tokens**2


def train_by_ringtune(place: Path, work: Work, way: str) -> dict[str, Any]:
    folder = place / way
    flags: dict[str, object] = {
        "model_name_or_path": place / "model",
        "train_file": place / "rows.csv",
        "output_dir": folder,
        "cache_dir": place / "cache",
        "overwrite_output_dir": "true",
        "max_seq_length": 512,
        "global_batch_size": work.batch,
        "max_steps": work.steps,
        "bf16": "true",
        "logging_steps": 1,
        "save_strategy": "no",
        "do_eval": "false",
        "report_to": "none",
        "disable_tqdm": "true",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "ringtune.train.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CASE_LIMIT_S)
    if done.returncode:
        return {"error": (done.stderr or done.stdout).splitlines()[-1]}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [each for each in records if each["event"] == "train"][work.steps // 3 :]
    seconds = sum(each["num_tokens"] / each["tokens_per_s"] for each in steps)
    return {
        "rows_per_s": work.batch * len(steps) / seconds,
        "tokens_per_s": sum(each["num_tokens"] for each in steps) / seconds,
        "tokens_per_row": statistics.fmean(each["num_tokens"] for each in steps) / work.batch,
        "padding_share": statistics.fmean(each["padding_share"] for each in steps),
        "peak_memory_gib": steps[-1]["peak_memory_gib"],
    }


def train_by_trainer(place: Path, work: Work, way: str) -> dict[str, Any]:
    return in_process("trainer", place, json.dumps(work.__dict__), way)


def table(folder: Path) -> str:
    """Return what was measured, as a table of Markdown."""
    lines = ["| case | rows/s | tokens/s | share of the bf16 rate | peak GiB |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(folder.glob("*-*.json")):
        found = json.loads(path.read_text())
        if "rows_per_s" in found:
            share = f"{found['share_of_matrix_rate']:.1%}" if "share_of_matrix_rate" in found else "-"
            cells = (
                f"{found['rows_per_s']:.1f}",
                f"{found['tokens_per_s']:.0f}",
                share,
                f"{found['peak_memory_gib']:.2f}",
            )
            lines.append(f"| {found['case']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
