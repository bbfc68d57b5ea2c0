"""Rows of words whose tags follow from the words, of the vocabulary of `tiny`: things, a noun with or without an
article, and moods, a word of praise or blame with or without ``very``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from ringtune.train.task import tags
from ringtune.train.words import joined

BEGINS = {"THING": ("a", "an", "the"), "MOOD": ("very",)}
WORDS = {
    "THING": ("film", "plot", "cast", "story", "scene"),
    "MOOD": ("good", "great", "fine", "bad", "dull", "awful", "slow", "warm", "odd", "deft"),
    "": ("is", "was", "not"),
}


def rows(num_rows: int, seed: int) -> Iterator[tuple[list[str], list[tags.Entity]]]:
    """Give words and entities of rows, a few longer than 32 tokens, and some with a word that gives no piece."""
    draw = random.Random(seed)
    for number in range(num_rows):
        words: list[str] = []
        found: list[tags.Entity] = []
        for _ in range(draw.randint(1, 14) + 25 * (number % 10 == 0)):
            kind, start = draw.choice(list(WORDS)), len(words)
            if kind and draw.random() < 0.7:
                words.append(draw.choice(BEGINS[kind]))
            words.append(draw.choice(WORDS[kind]))
            if kind:
                found.append((kind, start, len(words)))
        if number % 7 == 0:
            words.append("\u200d")
        yield words, found


def write_words(path: Path, num_rows: int, seed: int, scheme: str = tags.IOB2) -> Path:
    """Write a list of words and one of tags a row."""
    with path.open("w") as stream:
        for words, found in rows(num_rows, seed):
            row = {"id": len(words), "tokens": words, "ner_tags": tags.written(found, len(words), scheme)}
            stream.write(json.dumps(row) + "\n")
    return path


def write_columns(path: Path, num_rows: int, seed: int, scheme: str = tags.IOB2) -> Path:
    """Write the same rows as a column file."""
    lines = ["-DOCSTART- -X- O", ""]
    for words, found in rows(num_rows, seed):
        lines += [f"{word} X {tag}" for word, tag in zip(words, tags.written(found, len(words), scheme), strict=True)]
        lines.append("")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_spans(path: Path, num_rows: int, seed: int) -> Path:
    """Write the same rows as texts with entities."""
    with path.open("w") as stream:
        for words, found in rows(num_rows, seed):
            text, bounds = joined(words)
            spans = [
                {"start": bounds[start][0], "end": bounds[stop - 1][1], "label": kind} for kind, start, stop in found
            ]
            stream.write(json.dumps({"text": text, "entities": spans}) + "\n")
    return path
