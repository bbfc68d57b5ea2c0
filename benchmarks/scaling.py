"""How a step scales: measure this machine's constants, check a model against real runs, draw it to 4,096 ranks.

``scaling.py measure`` takes ten minutes on two quiet cores and writes ``benchmarks/results/scaling-<machine>.json``:
Horovod's real allreduce over 2 to 4 ranks of this host, steps of one rank of ringtune-train on the demo's rows, and, as
a check, allreduces and training runs over 1 to 4 hosts in network namespaces whose links are limited by ``tc`` (needs
root). ``scaling.py draw`` reads such a file and writes docs/scaling.md and docs/scaling.svg, predicted and measured
apart. ``--dry_run`` says what would be done. The formulas and their sources: scaling_model.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scaling_model as model
import speed
from ringtune.launch.demo import fetch
from ringtune.train.contract import cache_folder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPT = str(Path(__file__).resolve())
SIZES = tuple(4096 * 8**power for power in range(6))  # 4 KiB to 128 MiB
RANKS = (2, 3, 4)
ROWS_PER_RANK, MAX_TOKENS, TRAINING_STEPS = 16, 64, 12
TOKENS_OF_A_ROW, ONE_RANK_STEPS = (8, 24, 64), 20
ROUNDS = 7
TRAIN = [sys.executable, "-m", "ringtune.train.cli"]
#: The gradient of the word embeddings as PyTorch makes it, for comparison: there is no flag for it.
DENSE = "from ringtune.train import cli, embedding; embedding.SMALLEST = 1 << 62; cli.main()"
WAYS = {
    "fp32, dense": [sys.executable, "-c", DENSE],
    "fp32": TRAIN,
    "fp16": [*TRAIN, "--compression", "fp16"],
    "acp": [*TRAIN, "--compression", "acp"],
}
PARTS = {
    "machine": "name the processor; time one thread's fp32 matrix products",
    "allreduce": f"Horovod's allreduce of {SIZES[0]} to {SIZES[-1]} bytes over {RANKS} ranks of this host",
    "step": f"{ONE_RANK_STEPS} steps of ringtune-train on one rank, for rows of up to {TOKENS_OF_A_ROW} tokens",
    "links": "the same allreduces over hosts with limited links (root)",
    "training": f"{TRAINING_STEPS} steps of ringtune-train on 1 to 4 such hosts, by {'; '.join(WAYS)} (root)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure_parser = commands.add_parser("measure", help="measure, and write the results after every part")
    measure_parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    measure_parser.add_argument(
        "--rate", type=rate, default="1gbit", help="of the hosts' links, as tc has it (default: 1gbit)"
    )
    draw_parser = commands.add_parser("draw", help="write docs/scaling.md and docs/scaling.svg from results")
    for each in (measure_parser, draw_parser):
        each.add_argument("--results", type=Path, default=RESULTS / f"scaling-{machine_name()}.json")
        each.add_argument("--dry_run", action="store_true", help="say what would be done")
    commands.add_parser("worker", help="what `measure` starts on each rank: time allreduces")
    options = parser.parse_args()
    if options.command == "worker":
        time_allreduces()
    elif options.command == "measure":
        wrong = sorted(set(options.parts) - set(PARTS))
        if wrong:
            parser.error(f"PART: {wrong[0]} is not known; {', '.join(PARTS)}")
        measure(options)
    else:
        import scaling_draw

        if not options.results.exists():
            parser.error(f"--results: {options.results} is not there; scaling.py measure writes it")
        scaling_draw.draw(json.loads(options.results.read_text()), options.results, dry_run=options.dry_run)


def rate(words: str) -> str:
    """Return a rate as tc has it, or raise what argparse reports."""
    if model.rate_bytes(words) is None:
        raise argparse.ArgumentTypeError(f"{words} is no rate; 100mbit, 1gbit")
    return words


def processor() -> str:
    """Return the processor's name."""
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def machine_name() -> str:
    """Return the processor's name as part of a file's name."""
    return "-".join(re.sub(r"\([^)]*\)|[^A-Za-z0-9]+", " ", processor()).lower().split())


def measure(options: argparse.Namespace) -> None:
    """Measure the parts that are asked for and keep what the file has of others."""
    measures = {
        "machine": machine,
        "allreduce": lambda: [each for ranks in RANKS for each in on_this_host(ranks)],
        "step": steps_of_one_rank,
        "links": lambda: on_hosts(options.rate, allreduce_between),
        "training": lambda: on_hosts(options.rate, train_between),
    }
    found = json.loads(options.results.read_text()) if options.results.exists() else {}
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is not quiet: load {os.getloadavg()[0]:.1f}; the figures will spread", file=sys.stderr)
    for part in options.parts or PARTS:
        print(f"{part}: {PARTS[part]}", flush=True)
        if options.dry_run:
            continue
        found[part] = {"load_before": os.getloadavg()[0], "values": measures[part]()}
        options.results.write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    import torch

    torch.set_num_threads(1)
    square = torch.randn(1024, 1024)
    seconds = spread(lambda: square @ square)["median"]
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "fp32_gflops_per_core": 2 * 1024**3 / seconds / 1e9,
        "torch": torch.__version__,
    }


def spread(work: Any, rounds: int = ROUNDS) -> dict[str, float]:
    """Return median, least and most seconds of some rounds of work, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def time_allreduces() -> None:
    """Print the times of allreduces on these ranks; a round takes as long as its slowest rank. **Collective.**"""
    import torch
    from ringtune.train.comm import Comm

    comm = Comm()
    for size in SIZES:
        tensor, times = torch.zeros(size // 4), []
        for number in range(ROUNDS + 1):
            comm.any(False, "start")
            started = time.perf_counter()
            comm.wait(comm.add_async(tensor, f"sum/{size}"))
            mine = torch.tensor([time.perf_counter() - started], dtype=torch.float64)
            slowest = float(comm.maximum(mine, "slowest"))
            if number:
                times.append(slowest)
        if comm.rank == 0:
            row = {"ranks": comm.size, "bytes": size, "median": statistics.median(times)}
            print(json.dumps({**row, "least": min(times), "most": max(times)}), flush=True)
    comm.close()


def steps_of_one_rank() -> dict[str, Any]:
    """Return the tokens and the seconds of steps of ringtune-train on one rank, and the shapes of what it trains."""
    from safetensors import safe_open

    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for length in TOKENS_OF_A_ROW:
            folder = Path(temporary) / str(length)
            words = training(
                folder, Path(temporary) / "tokens", rows=ROWS_PER_RANK, tokens=length, steps=ONE_RANK_STEPS
            )
            subprocess.run([*TRAIN, *words], check=True, stdout=subprocess.DEVNULL, env=speed.environment())
            found += [{"tokens": tokens, "seconds": seconds} for tokens, seconds in steps_of(folder)[ROUNDS:]]
        with safe_open(folder / "model.safetensors", "np") as tensors:
            shapes = [list(tensors.get_slice(name).get_shape()) for name in list(tensors.keys())]
    return {"steps": found, "shapes": shapes}


def training(folder: Path, cache: Path, *, rows: int, tokens: int, steps: int) -> list[str]:
    """Return the flags of a run of ringtune-train on the demo's rows."""
    demo = fetch(cache_folder())
    return speed.train_flags(
        model_name_or_path=demo / "model",
        train_file=demo / "train.csv",
        output_dir=folder,
        cache_dir=cache,
        max_seq_length=tokens,
        global_batch_size=rows,
        max_steps=steps,
    )


def steps_of(folder: Path) -> list[tuple[int, float]]:
    """Return the tokens and the seconds of each step of a run."""
    return [(each["num_tokens"], each["num_tokens"] / each["tokens_per_s"]) for each in speed.train_records(folder)]


def on_this_host(ranks: int) -> list[dict[str, float]]:
    """Return the times of allreduces of some ranks of this host."""
    command = ["mpirun", "-np", str(ranks), "--bind-to", "none", sys.executable, SCRIPT, "worker"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=speed.environment())
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def on_hosts(rate: str, work: Any) -> dict[str, Any]:
    """Return what is measured with 1 to 4 hosts of limited links, or why nothing is."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cluster.hosts import Cluster, missing

    if missing():
        return {"rate": rate, "missing": missing()}
    names = "abcd"
    with tempfile.TemporaryDirectory() as shared, Cluster(*names, shared=Path(shared)) as cluster:
        for name in names:
            cluster.slow_down(name, rate)
        return {"rate": rate, "found": [each for number in (1, *RANKS) for each in work(cluster, number, Path(shared))]}


def launch(cluster: Any, number: int, *command: str) -> str:
    """Run a command on one rank of each of some hosts and return its output."""
    hosts = ",".join(f"{name}:1" for name in cluster.names[:number])
    words = ["ringtune-launch", "run", "-H", hosts, "--", *command]
    done = cluster.run("a", words, env=speed.environment(), limit_s=900)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.output}")
    return done.output


def allreduce_between(cluster: Any, number: int, _shared: Path) -> list[dict[str, float]]:
    """Return the times of allreduces over some hosts."""
    if number == 1:
        return []
    output = launch(cluster, number, sys.executable, SCRIPT, "worker")
    return [json.loads(each) for each in re.findall(r'\{"ranks".*\}', output)]


def train_between(cluster: Any, number: int, shared: Path) -> list[dict[str, Any]]:
    """Return the seconds of a step of training on some hosts, by each way of sending gradients."""
    found = []
    for way, command in WAYS.items():
        folder = shared / f"run-{number}-{way}"
        words = training(
            folder, shared / "tokens", rows=ROWS_PER_RANK * number, tokens=MAX_TOKENS, steps=TRAINING_STEPS
        )
        launch(cluster, number, *command, *words)
        times = [seconds for _, seconds in steps_of(folder)][2:]
        facts = {"way": way, "ranks": number, "median": statistics.median(times)}
        found.append({**facts, "least": min(times), "most": max(times)})
    return found


def constants(found: dict[str, Any]) -> tuple[model.Link, model.Compute]:
    """Return this host's own link and a rank's computing, fitted to what was measured."""
    import numpy as np

    link = model.fit_link([(each["ranks"], each["bytes"], each["median"]) for each in found["allreduce"]["values"]])
    steps = found["step"]["values"]["steps"]
    per_token, rest = np.polyfit([each["tokens"] for each in steps], [each["seconds"] for each in steps], 1)
    # Backward computes two products for each of forward's.
    return link, model.Compute(float(per_token) / 3, float(per_token) * 2 / 3, max(0.0, float(rest)))


if __name__ == "__main__":
    main()
