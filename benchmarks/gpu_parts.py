"""The parts of ``gpu.py`` that run in processes of their own: ``gpu_parts.py PART ARGUMENTS``. Each prints JSON."""

from __future__ import annotations

import csv
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

WORDS = [f"w{number}" for number in range(2000)]
#: hidden size, layers, heads, feed-forward size (Devlin et al. 2019).
SIZES = {"base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096), "tiny": (32, 2, 2, 64)}


@dataclass(frozen=True)
class Work:
    """A model and rows to train it on."""

    size: str
    mean_tokens: int  # of a row
    is_ragged: bool  # lengths as of real texts, spread by a factor of 1.8 around the mean; or all the same
    batch: int  # rows of a step
    steps: int

    @property
    def name(self) -> str:
        return f"{self.size}-{self.mean_tokens}{'-ragged' if self.is_ragged else ''}"


def machine() -> dict[str, Any]:
    """Return the rate of square matrix products, TFLOP/s, and the bandwidth of a copy, GB/s (read and write)."""
    import torch

    on_gpu = torch.cuda.is_available()
    device, size = ("cuda", 8192) if on_gpu else ("cpu", 512)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
    }
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "highest"),
        ("tf32", torch.float32, "high"),
        ("fp32", torch.float32, "highest"),
    ):
        if on_gpu:
            torch.set_float32_matmul_precision(precision)
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = fastest(lambda left=left, right=right: left @ right)
        result[f"{name}_tflops"] = 2 * size**3 / seconds / 1e12
    block = torch.empty((1 << 30 if on_gpu else 1 << 24) // 4, device=device)
    result["copy_gbps"] = 2 * block.numel() * 4 / fastest(lambda: block.clone()) / 1e9
    return result


def fastest(work: Callable[[], object]) -> float:
    """Return the time of the fastest of twenty runs, s, after three to warm up."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times = []
    for _ in range(23):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return min(times[3:])


def prepare(place: str, words: str) -> dict[str, Any]:
    """Write a random model with a tokenizer of one token a word, and rows."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    work, folder = Work(**json.loads(words)), Path(place)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "model" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "model" / "vocab.txt"), model_max_length=512)
    tokenizer.save_pretrained(folder / "model")
    hidden, layers, heads, inner = SIZES[work.size]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    draw = random.Random(0)
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for number in range(work.batch * (work.steps + 4)):
            # Lengths of texts are spread about lognormally; sigma 0.6 is that of the demo's reviews.
            tokens = draw.lognormvariate(-0.18, 0.6) * work.mean_tokens if work.is_ragged else work.mean_tokens
            num_words = max(2, min(510, round(tokens) - 2))
            writer.writerow((" ".join(draw.choices(WORDS, k=num_words)), ("no", "yes")[number % 2]))
    return {}


def trainer(place: str, words: str, way: str) -> dict[str, Any]:
    """Train by transformers' Trainer and return its speed after the first third of the steps."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    work, folder = Work(**json.loads(words)), Path(place)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = encoded_rows(tokenizer, folder / "rows.csv")
    if way == "trainer-best":
        torch.backends.cuda.enable_cudnn_sdp(False)
    best = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    arguments = TrainingArguments(
        output_dir=str(folder / way),
        per_device_train_batch_size=work.batch,
        max_steps=work.steps,
        bf16=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **(best if way == "trainer-best" else {}),
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=torch.float32)
    clock = step_clock(work)
    collator = DataCollatorWithPadding(tokenizer)
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]).train()
    begun, ended = clock.times
    seconds = (ended - begun) / (work.steps - work.steps // 3)
    tokens = statistics.fmean(len(each["input_ids"]) for each in rows)
    return {
        "rows_per_s": work.batch / seconds,
        "tokens_per_s": work.batch / seconds * tokens,
        "tokens_per_row": tokens,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / (1 << 30) if torch.cuda.is_available() else 0.0,
    }


def encoded_rows(tokenizer: Any, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file as Trainer takes them."""
    with path.open(newline="") as stream:
        read = list(csv.DictReader(stream))
    encoded = tokenizer([each["text"] for each in read], truncation=True, max_length=512)["input_ids"]
    return [{"input_ids": ids, "labels": int(each["label"] == "yes")} for ids, each in zip(encoded, read, strict=True)]


def step_clock(work: Work) -> Any:
    """Return a callback of Trainer that notes when the device has ended the first third of the steps, and all."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        times: ClassVar[list[float]] = []

        def on_step_end(self, args: Any, state: Any, *_: object, **__: object) -> None:
            if state.global_step in (work.steps // 3, work.steps):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.times.append(time.perf_counter())

    return Clock()


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"machine": machine, "prepare": prepare, "trainer": trainer}
if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
