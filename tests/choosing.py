"""Rows of a context with choices, in every form that is read; the right one alone has a word of praise."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from tiny import WORDS

PRAISE = ("good", "great", "fine", "warm", "deft")
OTHERS = [word for word in WORDS if word not in PRAISE]
NUM_CHOICES = 4


def draw_rows(num_rows: int, seed: int) -> list[tuple[str, str, list[str], int]]:
    """Return context, what begins each choice, choices, and the number of the right one."""
    draw = random.Random(seed)
    rows = []
    for _ in range(num_rows):
        choices = [" ".join(draw.choices(OTHERS, k=draw.randint(1, 5))) for _ in range(NUM_CHOICES)]
        right = draw.randrange(NUM_CHOICES)
        words = choices[right].split()
        words[draw.randrange(len(words))] = draw.choice(PRAISE)
        choices[right] = " ".join(words)
        context = " ".join(draw.choices(WORDS, k=draw.randint(2, 12)))
        rows.append((context, draw.choice(("the film is", "a plot was")), choices, right))
    return rows


def write_swag(path: Path, num_rows: int, seed: int) -> Path:
    """Write rows as SWAG has them, as CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "sent1", "sent2", *(f"ending{number}" for number in range(NUM_CHOICES)), "label"))
        for number, (context, begin, choices, right) in enumerate(draw_rows(num_rows, seed)):
            writer.writerow((number, context, begin, *choices, right))
    return path


def write_lists(path: Path, num_rows: int, seed: int, *, short: bool = False) -> Path:
    """Write the same rows with a list of choices. short: some rows without one or two of their wrong choices."""
    with path.open("w") as stream:
        for number, (context, begin, choices, right) in enumerate(draw_rows(num_rows, seed)):
            several: list[str | None] = list(choices)
            if short and number % 3 == 0:
                several[(right + 1) % NUM_CHOICES] = None
            if short and number % 5 == 0 and right < NUM_CHOICES - 1:
                several.pop()
            row = {"article": context, "question": begin, "choices": several, "label": right}
            stream.write(json.dumps(row) + "\n")
    return path


def write_columns(path: Path, num_rows: int, seed: int) -> Path:
    """Write the same rows, what begins a choice being part of it, with letters for labels."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("context", *(f"choice_{letter}" for letter in "abcd"), "answer"))
        for context, begin, choices, right in draw_rows(num_rows, seed):
            writer.writerow((context, *(f"{begin} {each}" for each in choices), "ABCD"[right]))
    return path
