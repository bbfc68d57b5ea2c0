"""The parts of ``speed.py`` that run in processes of their own: ``speed_parts.py PART ARGUMENTS``. Each prints JSON."""

from __future__ import annotations

import csv
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_LONG_ROWS = 600
TRAINER: dict[str, Any] = {
    "learning_rate": 1e-4,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "ddp_backend": "gloo",
}
BEST: dict[str, Any] = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}


def machine() -> dict[str, Any]:
    """Return the processor's name, the rate of matrix products of one core, and the bandwidth of a copy."""
    import torch

    torch.set_num_threads(1)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    result: dict[str, Any] = {
        "processor": f"{name} {'with' if 'amx_bf16' in flags else 'without'} AMX",
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
    }
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = torch.randn(512, 384).to(dtype), torch.randn(384, 1536).to(dtype)
        result[f"{kind}_gflops"] = 2 * 512 * 384 * 1536 / fastest(lambda left=left, right=right: left @ right) / 1e9
    block = torch.empty(1 << 24)
    result["copy_gbps"] = 2 * block.numel() * 4 / fastest(lambda: block.clone()) / 1e9
    return result


def fastest(work: Callable[[], object]) -> float:
    """Return the time of the fastest of forty runs, s, after three to warm up."""
    times = []
    for _ in range(43):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[3:])


def prepare(place: str, demo: str) -> dict[str, Any]:
    """Write BERT-base with random weights, and rows of 200 to 384 tokens: real sentences, joined."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(Path(demo) / "model")
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer)))
    model.save_pretrained(Path(place) / "model")
    tokenizer.save_pretrained(Path(place) / "model")
    with (Path(demo) / "mixed.csv").open(newline="") as stream:
        sentences = [row["text"] for row in csv.DictReader(stream)]
    draw = random.Random(0)
    with (Path(place) / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for number in range(NUM_LONG_ROWS):
            wanted, text = draw.randint(200, 384), ""
            while len(tokenizer(text)["input_ids"]) < wanted:
                text = f"{text} {draw.choice(sentences)}"
            kept = tokenizer(text, truncation=True, max_length=wanted)["input_ids"][1:-1]
            writer.writerow((tokenizer.decode(kept), ("no", "yes")[number % 2]))
    return {}


def trainer(place: str, words: str) -> dict[str, Any]:
    """Train by transformers' Trainer and return its speed after the first third of the steps."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    facts, folder = json.loads(words), Path(place)
    (folder / "trainer").mkdir(exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = encoded_rows(tokenizer, folder / "rows.csv", facts["length"])
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *_: object, **__: object) -> None:
            if state.global_step == 1:
                (folder / "trainer" / "first-step").touch()
            if state.global_step in (facts["steps"] // 3, facts["steps"]):
                times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=facts["batch"] // int(os.environ["WORLD_SIZE"]),
        max_steps=facts["steps"],
        bf16=facts["bf16"],
        **(BEST if facts["way"] == "trainer-best" else {}),
        **TRAINER,
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2, dtype=torch.float32)
    collator = DataCollatorWithPadding(tokenizer)
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Clock()]).train()
    if facts["steps"] == 1:
        return {}
    seconds = (times[1] - times[0]) / (facts["steps"] - facts["steps"] // 3)
    return {"rows_per_s": facts["batch"] / seconds, "step_s": seconds}


def encoded_rows(tokenizer: Any, path: Path, length: int) -> list[dict[str, Any]]:
    """Return the rows of a file as Trainer takes them."""
    with path.open(newline="") as stream:
        read = list(csv.DictReader(stream))
    encoded = tokenizer([each["text"] for each in read], truncation=True, max_length=length)["input_ids"]
    names = sorted({each["label"] for each in read})
    return [{"input_ids": ids, "labels": names.index(each["label"])} for ids, each in zip(encoded, read, strict=True)]


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"machine": machine, "prepare": prepare, "trainer": trainer}
if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
