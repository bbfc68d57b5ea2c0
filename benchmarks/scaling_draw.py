"""The tables and the plot of docs/scaling.md, from what ``scaling.py measure`` found."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scaling
import scaling_model as model
from ringtune.launch.demo import fetch
from ringtune.train.contract import cache_folder
from ringtune.train.packing import Packer

DOCS = scaling.ROOT / "docs"
NETWORKS = {10: 30e-6, 25: 20e-6, 100: 5e-6, 400: 3e-6}  # Gbit/s → s of a message: assumed, not measured
DRAWN = tuple(2**power for power in range(1, 13))
SHOWN = (2, 8, 32, 256, 1024, 4096)
PICTURE = "\n![Predicted efficiency by number of ranks](scaling.svg)\n"
RANK = 4  # of the low-rank gradient
WAYS = {
    "fp32, dense": "#555555",
    "fp32": "#1f77b4",
    "fp16": "#2ca02c",
    "acp": "#d62728",
}


@dataclass(frozen=True)
class Rows:
    """The demo's rows as the tokenizer cuts them, and the packer of its model."""

    lengths: np.ndarray
    vocabulary: list[np.ndarray]
    packer: Packer


@cache
def demo_rows() -> Rows:
    """Return the rows of the demo."""
    from transformers import AutoConfig, AutoTokenizer

    folder = fetch(cache_folder())
    hidden_size = AutoConfig.from_pretrained(folder / "model").hidden_size
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with (folder / "train.csv").open(newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    ids = tokenizer(texts, truncation=True, max_length=scaling.MAX_TOKENS)["input_ids"]
    packer = Packer(hidden_size=hidden_size, padding_token=None, takes_types=True)
    return Rows(np.array(list(map(len, ids))), [np.unique(each) for each in ids], packer)


@cache
def load(ranks: int) -> model.Load:
    """Return what the ranks get of a step, over some simulated steps."""
    rows = demo_rows()
    steps = max(2, 64 // ranks)
    return model.deal_steps(rows.lengths, rows.vocabulary, rows.packer, ranks, scaling.ROWS_PER_RANK, steps)


def sending(way: str, ranks: int, shapes: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return the bytes that are summed beside backward, and those that are ready at its end: the word embeddings'.

    As ringtune sends them; "fp32, dense" is what Horovod sends of a gradient as PyTorch makes it.
    """
    embeddings = max(shapes, key=np.prod)
    rest = [each for each in shapes if each is not embeddings]
    early = 4.0 * sum(map(np.prod, rest))
    if way == "acp":
        return model.low_rank_bytes(rest, RANK), model.low_rank_bytes([embeddings], RANK)
    if way == "fp32, dense":
        return early, 4.0 * float(np.prod(embeddings))
    rows = model.rows_bytes(embeddings[0], load(ranks).rows_of_all, 4 * embeddings[1])
    return early / 2 if way == "fp16" else early, rows


def step(
    way: str,
    ranks: int,
    shapes: Sequence[Sequence[int]],
    compute: model.Compute,
    link: model.Link,
    crowding: float = 1.0,
) -> float:
    """Return the predicted seconds of a step. crowding: ranks that share a core."""
    early, late = sending(way, ranks, shapes)
    crowded = model.Compute(*(each * crowding for each in vars(compute).values()))
    hidden = model.Link(link.alpha_s, link.bytes_per_s)  # what starts during backward is not waited for
    return model.step_seconds(
        load(ranks).most_tokens, crowded, model.ring(ranks, early, hidden), model.ring(ranks, late, link)
    )


def efficiency(way: str, ranks: int, found: Mapping[str, Any], gbits: int) -> float:
    """Return the predicted share of N times one rank's samples/s."""
    own, compute = scaling.constants(found)
    link = model.Link(NETWORKS[gbits], gbits * 1e9 / 8, own.start_s)
    shapes = found["step"]["values"]["shapes"]
    return step(way, 1, shapes, compute, link) / step(way, ranks, shapes, compute, link)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, each)) + " |" for each in lines) + "\n"


def predictions(found: Mapping[str, Any]) -> str:
    """Return the predicted efficiencies, and what stragglers alone leave."""
    rows = [
        [f"{gbits} Gbit/s", way, *(f"{efficiency(way, ranks, found, gbits):.0%}" for ranks in SHOWN)]
        for gbits in NETWORKS
        for way in WAYS
    ]
    rows.append(["any", "rank balance alone", *(f"{load(ranks).balance:.3f}" for ranks in SHOWN)])
    shapes = found["step"]["values"]["shapes"]
    for way in WAYS:
        shares = (sum(sending(way, ranks, shapes)) / sum(sending("fp32, dense", ranks, shapes)) for ranks in SHOWN)
        rows.append(["bytes ÷ those of fp32, dense", way, *(f"{share:.1%}" for share in shares)])
    return table(["network", "gradient", *(f"{ranks} ranks" for ranks in SHOWN)], rows)


def checks(found: Mapping[str, Any]) -> str:
    """Return what was measured beside what the model says of it."""
    own, compute = scaling.constants(found)
    rows = [
        _beside(
            f"allreduce, {each['bytes']:,} bytes, {each['ranks']} ranks, this host (fitted)",
            each,
            model.ring(each["ranks"], each["bytes"], own),
        )
        for each in found["allreduce"]["values"]
    ]
    links = found.get("links", {}).get("values", {})
    at_two = [(each["ranks"], each["bytes"], each["median"]) for each in links.get("found", []) if each["ranks"] == 2]
    if at_two:
        fitted = model.fit_link(at_two)
        link = model.Link(fitted.alpha_s, model.rate_bytes(links["rate"]), fitted.start_s)
        rows += [
            _beside(
                f"allreduce, {each['bytes']:,} bytes, {each['ranks']} hosts at {links['rate']}",
                each,
                model.ring(each["ranks"], each["bytes"], link),
            )
            for each in links["found"]
        ]
        cores, shapes = found["machine"]["values"]["cores"], found["step"]["values"]["shapes"]
        rows += [
            _beside(
                f"step of training, {each['way']}, {each['ranks']} hosts at {links['rate']}",
                each,
                step(each["way"], each["ranks"], shapes, compute, link, max(1.0, each["ranks"] / cores)),
            )
            for each in found.get("training", {}).get("values", {}).get("found", [])
        ]
    return table(["what", "measured s: median (least to most)", "predicted s", "predicted ÷ measured"], rows)


def _beside(what: str, measured: Mapping[str, float], predicted: float) -> list[str]:
    median, least, most = (measured[name] for name in ("median", "least", "most"))
    return [what, f"{median:.4f} ({least:.4f} to {most:.4f})", f"{predicted:.4f}", f"{predicted / median:.2f}"]


def plot(found: Mapping[str, Any]) -> str:
    """Return the predicted efficiencies as SVG, a panel for each network."""
    wide, high, gap = 200, 150, 45
    parts = []
    for number, gbits in enumerate(NETWORKS):
        left = gap + number * (wide + gap)
        parts.append(f'<rect x="{left}" y="30" width="{wide}" height="{high}" fill="none" stroke="#999"/>')
        parts.append(f'<text x="{left}" y="22">{gbits} Gbit/s, predicted</text>')
        parts += [
            f'<text x="{left - 32}" y="{34 + high * (1 - share):.0f}">{share:.0%}</text>' for share in (0, 0.5, 1)
        ]
        parts += [
            f'<text x="{left + wide * index / (len(DRAWN) - 1) - 8:.0f}" y="{high + 44}">{DRAWN[index]}</text>'
            for index in (0, 5, 11)
        ]
        for way, colour in WAYS.items():
            points = " ".join(
                f"{left + wide * index / (len(DRAWN) - 1):.1f},"
                f"{30 + high * (1 - min(1.0, efficiency(way, ranks, found, gbits))):.1f}"
                for index, ranks in enumerate(DRAWN)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for number, (way, colour) in enumerate(WAYS.items()):
        parts.append(f'<text x="{gap + number * 200}" y="{high + 66}" fill="{colour}">{way}</text>')
    size = f'width="{gap + len(NETWORKS) * (wide + gap)}" height="{high + 76}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, *parts, "</svg>", ""])


def draw(found: Mapping[str, Any], source: Path, *, dry_run: bool) -> None:
    """Write docs/scaling.md between its marks, and docs/scaling.svg."""
    page, picture = DOCS / "scaling.md", DOCS / "scaling.svg"
    missing = [each for each in ("machine", "allreduce", "step") if each not in found]
    if missing:
        raise SystemExit(f"{source}: it has no {', '.join(missing)}; scaling.py measure {' '.join(missing)}")
    print(f"{source.name} → {page}, {picture}")
    if dry_run:
        return
    own, compute = scaling.constants(found)
    machine = found["machine"]["values"]
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['fp32_gflops_per_core']:.0f} GFLOP/s per core in "
        f"fp32; from `{source.name}`. Of this host: alpha {own.alpha_s * 1e6:.0f} µs, "
        f"{own.bytes_per_s / 1e9:.2f} GB/s, {own.start_s * 1e3:.2f} ms for each allreduce; a rank computes "
        f"{compute.forward_s_per_token * 1e3:.3f} + "
        f"{compute.backward_s_per_token * 1e3:.3f} ms a token and {compute.step_s * 1e3:.0f} ms a step. Load of the "
        f"machine before each part: " + ", ".join(f"{name} {each['load_before']:.1f}" for name, each in found.items())
    )
    text = page.read_text()
    for mark, content in (
        ("about", about + "\n"),
        ("measured", checks(found)),
        ("predicted", predictions(found) + PICTURE),
    ):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
            lambda match, content=content: f"{match[1]}{content}{match[2]}",
            text,
            flags=re.DOTALL,
        )
    page.write_text(text)
    picture.write_text(plot(found))
