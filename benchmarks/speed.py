"""Training speed beside transformers' Trainer, in pairs: ``benchmarks/speed.py [--rounds 5] [--work reviews long]``.

Two ranks of one thread. Every round runs each way once, so that what disturbs the machine disturbs all of them; the
ratio of a round is that of two runs beside each other, and the table gives the median of the rounds and their range.
Trainer runs under torchrun with Gloo, by its defaults and by its best settings (rows of like length together, fused
AdamW), each in fp32 and in bf16. Only ways of the same precision are compared. The first third of the steps of a run is
left out. Results go to ``benchmarks/results/speed-PROCESSOR.json``, with the rate of matrix products of the machine;
what it has of other works stays.

The share of the matrix rate counts the products of forward and backward of real tokens, as ``gpu.py`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringtune.launch.demo import fetch
from ringtune.launch.verify import rank_environment
from ringtune.train.contract import cache_folder

PARTS = Path(__file__).with_name("speed_parts.py")
RESULTS = Path(__file__).with_name("results")
RANKS = 2
LIMIT_S = 600  # of one run
#: For each work: rows of a step over all ranks, tokens of a row at most, steps of a run.
WORKS = {"reviews": (32, 64, 45), "long": (8, 384, 12)}
ALL_WORKS = {**WORKS, "first": (32, 64, 1)}  # the last for costs.py
WAYS = [f"{who}-{precision}" for precision in ("fp32", "bf16") for who in ("ringtune", "trainer", "trainer-best")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags for ringtune-train")
    options = parser.parse_args()
    machine = run([sys.executable, str(PARTS), "machine"])
    print(json.dumps(machine), flush=True)
    path = results_path("speed", machine)
    with tempfile.TemporaryDirectory() as temporary:
        for work in options.work:
            place = Path(temporary) / work
            prepare(place, work)
            rounds: list[dict[str, Any]] = []
            for number in range(options.rounds):
                rounds.append({way: measure(place, work, way, options.flags) for way in options.ways})
                words = ", ".join(f"{way} {each['rows_per_s']:.1f}" for way, each in rounds[-1].items())
                print(f"{work}, round {number + 1}, rows/s: {words}", flush=True)
                found = keep(path, work, {"machine": machine, "flags": options.flags, "rounds": rounds})
    print(f"{table(found)}\nwritten to {path}")


def keep(path: Path, part: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write what was found of a part to the results of this machine, and return them; other parts stay."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found[part] = facts
    path.write_text(json.dumps(found, indent=1) + "\n")
    return dict(found)


def results_path(what: str, machine: dict[str, Any]) -> Path:
    """Return where the results of a machine are written."""
    RESULTS.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", machine["processor"].lower()).strip("-")
    return RESULTS / f"{what}-{name}.json"


def prepare(place: Path, work: str) -> None:
    """Put model and rows of a work into a folder."""
    place.mkdir()
    demo = fetch(cache_folder())
    if work == "reviews":
        (place / "model").symlink_to(demo / "model")
        (place / "rows.csv").symlink_to(demo / "train.csv")
        return
    run([sys.executable, str(PARTS), "prepare", str(place), str(demo)])


def measure(place: Path, work: str, way: str, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Return rows/s of one run, and the tokens of a row."""
    batch, length, steps = ALL_WORKS[work]
    who, _, precision = way.rpartition("-")
    if who != "ringtune":
        facts = {"batch": batch, "length": length, "steps": steps, "bf16": precision == "bf16", "way": who}
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--standalone"]
        return run([*command, str(PARTS), "trainer", str(place), json.dumps(facts)])
    train(place, work, way, flags)
    trained = train_records(place / way)[steps // 3 :]
    seconds = sum(each["num_tokens"] / each["tokens_per_s"] for each in trained)
    return {
        "rows_per_s": batch * len(trained) / seconds,
        "tokens_per_row": sum(each["num_tokens"] for each in trained) / len(trained) / batch,
        "padding_share": statistics.fmean(each["padding_share"] for each in trained),
        "rank_balance": statistics.fmean(each["rank_balance"] for each in trained),
        "comm_s": statistics.median(each["comm_s"] for each in trained),
        "step_s": seconds / len(trained),
    }


def train(place: Path, work: str, way: str, flags: Sequence[str] = (), *, num_ranks: int = RANKS) -> None:
    """Run ringtune-train, under mpirun or, with 0 ranks, alone."""
    run(train_command(place, work, way, flags, num_ranks=num_ranks), reads=False)


def train_command(place: Path, work: str, way: str, flags: Sequence[str] = (), *, num_ranks: int = RANKS) -> list[str]:
    """Return the command of `train`."""
    batch, length, steps = ALL_WORKS[work]
    words = train_flags(
        model_name_or_path=place / "model",
        train_file=place / "rows.csv",
        output_dir=place / way,
        cache_dir=place / "cache",
        overwrite_output_dir="true",
        max_seq_length=length,
        global_batch_size=batch,
        max_steps=steps,
        bf16=str(way.endswith("bf16")).lower(),
    )
    launcher = ["mpirun", "-np", str(num_ranks), "--bind-to", "none"] if num_ranks else []
    return [*launcher, sys.executable, "-m", "ringtune.train.cli", *words, *flags]


def train_flags(**settings: object) -> list[str]:
    """Return flags of ringtune-train for a run that does nothing but its steps."""
    only = {"logging_steps": 1, "save_strategy": "no", "do_eval": "false", "report_to": "none", "disable_tqdm": "true"}
    return [word for name, value in {**settings, **only}.items() for word in (f"--{name}", str(value))]


def train_records(folder: Path) -> list[dict[str, Any]]:
    """Return the record of each step of a run, in order."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [each for each in records if each["event"] == "train"]


def environment() -> dict[str, str]:
    """Return the environment of a rank with one thread."""
    return {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}


def run(command: list[str], *, reads: bool = True) -> dict[str, Any]:
    """Run a command with one thread a rank; return the last line of JSON, which libraries may write others after."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if done.returncode:
        sys.exit(
            f"{' '.join(command[:6])} ...: exit code {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        )
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    # Two processes may have written into one line.
    return dict(json.JSONDecoder().raw_decode(found[-1])[0]) if reads else {}


def table(found: dict[str, Any]) -> str:
    """Return the ratios, as a table of Markdown. **Pure.**"""
    lines = [
        "| work | precision | ringtune rows/s | x Trainer's best | x its defaults | share of the matrix rate |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for work, facts in found.items():
        runs = facts["rounds"]
        for precision in ("fp32", "bf16"):
            mine = f"ringtune-{precision}"
            if mine not in runs[0]:
                continue
            cells = [f"{statistics.median(each[mine]['rows_per_s'] for each in runs):.1f}"]
            for peer in (f"trainer-best-{precision}", f"trainer-{precision}"):
                ratios = [each[mine]["rows_per_s"] / each[peer]["rows_per_s"] for each in runs if peer in each]
                cells.append(
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
                )
            share = statistics.median(share_of_rate(each[mine], work, precision, facts["machine"]) for each in runs)
            lines.append(f"| {work} | {precision} | {' | '.join(cells)} | {share:.0%} |")
    return "\n".join(lines)


def share_of_rate(measured: dict[str, float], work: str, precision: str, machine: dict[str, Any]) -> float:
    """Return the share of the matrix rate of two cores that the products of real tokens took. **Pure.**

    6 x parameters behind the embeddings x tokens, and 12 x layers x hidden size x tokens^2 of each row for attention
    (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1).
    """
    hidden, layers, inner = {"reviews": (384, 6, 1536), "long": (768, 12, 3072)}[work]
    parameters, tokens = layers * (4 * hidden * hidden + 2 * hidden * inner), measured["tokens_per_row"]
    per_row = 6 * parameters * tokens + 12 * layers * hidden * tokens**2
    return measured["rows_per_s"] * per_row / (RANKS * machine[f"{precision}_gflops"] * 1e9)


if __name__ == "__main__":
    main()
