"""Texts in which a hidden word follows from those around it, of the vocabulary of `tiny`: the words of a text are of
one group."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

GROUPS = (("film", "plot", "cast"), ("good", "great", "fine"), ("bad", "dull", "awful"), ("slow", "warm", "odd"))


def texts(num_texts: int, seed: int) -> Iterator[str]:
    """Give texts of one group's words; every tenth is longer than 32 tokens, some have a word of several pieces."""
    draw = random.Random(seed)
    for number in range(num_texts):
        group = draw.choice(GROUPS)
        words = draw.choices(group, k=draw.randint(4, 12) + 40 * (number % 10 == 9))
        if number % 7 == 0:
            words.insert(draw.randrange(len(words)), draw.choice(("deftest", "films")))
        yield " ".join(words)


def write(path: Path, num_texts: int, seed: int) -> Path:
    """Write a text a line, and a blank line behind every fifth."""
    lines = [text + "\n" * (number % 5 == 4) for number, text in enumerate(texts(num_texts, seed))]
    path.write_text("\n".join(lines) + "\n")
    return path


def unigram_entropy(num_texts: int, seed: int) -> float:
    """Return the loss of the best guess that does not look at the other words."""
    counts = Counter(word for text in texts(num_texts, seed) for word in text.split())
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())
