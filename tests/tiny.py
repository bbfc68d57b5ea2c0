"""A tiny BERT with a real tokenizer, and rows whose label follows from their words."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

WORDS = [
    "a",
    "an",
    "the",
    "film",
    "plot",
    "cast",
    "story",
    "scene",
    "is",
    "was",
    "not",
    "very",
    "good",
    "great",
    "fine",
    "bad",
    "dull",
    "awful",
    "slow",
    "warm",
    "odd",
    "deft",
]


def write_rows(path: Path, num_rows: int, seed: int) -> Path:
    """Write sentences of random words whose label follows from the words."""
    draw = random.Random(seed)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for _ in range(num_rows):
            words = draw.choices(WORDS, k=draw.randint(2, 24))
            mood = sum(word in ("good", "great", "fine", "warm", "deft") for word in words)
            mood -= sum(word in ("bad", "dull", "awful", "slow", "odd") for word in words)
            writer.writerow((" ".join(words), "up" if mood > 0 else "down"))
    return path


def make_tokenizer(folder: Path):
    """Return a real WordPiece tokenizer over a small vocabulary, saved in a folder."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write(folder: Path) -> None:
    """Write the model, ``rows.csv`` and ``dev.csv`` into a folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = make_tokenizer(folder / "model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    write_rows(folder / "rows.csv", 101, 1)
    write_rows(folder / "dev.csv", 37, 2)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    write(Path(sys.argv[1]))
