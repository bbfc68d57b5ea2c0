"""Rows that have any of three labels or none, which follow from their words, in every form that is read."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from tiny import WORDS

LABELS = {
    "praise": ("good", "great", "fine", "warm"),
    "blame": ("bad", "dull", "awful", "slow"),
    "denial": ("not",),
}


def draw_rows(num_rows: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return texts with their labels, in the order of ``LABELS``."""
    draw = random.Random(seed)
    rows = []
    for _ in range(num_rows):
        words = draw.choices(WORDS, k=draw.randint(1, 6))
        rows.append((" ".join(words), [name for name, of in LABELS.items() if set(words) & set(of)]))
    return rows


def write_lists(path: Path, num_rows: int, seed: int) -> Path:
    """Write an object a line, with its labels as a list."""
    rows = draw_rows(num_rows, seed)
    path.write_text("".join(json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows))
    return path


def write_columns(path: Path, num_rows: int, seed: int) -> Path:
    """Write the same rows with a column of 0 and 1 for each label."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", *LABELS))
        for text, labels in draw_rows(num_rows, seed):
            writer.writerow((text, *(int(name in labels) for name in LABELS)))
    return path


def write_texts(path: Path, num_rows: int, seed: int) -> Path:
    """Write the same rows with their labels in one text."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        writer.writerows((text, "; ".join(labels)) for text, labels in draw_rows(num_rows, seed))
    return path
