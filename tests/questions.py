"""Questions whose answers follow from the words, of the vocabulary of `tiny`: a question for praise or for blame, and a
context with a word of that, ``very`` being part of it, and now and then one of the other; some contexts have none."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ASKED = {"good": ("great", "fine", "warm", "deft"), "bad": ("dull", "awful", "slow", "odd")}
FILLERS = ("film", "plot", "cast", "story", "scene", "is", "was", "the", "a", "an")


def rows(num_rows: int, seed: int, *, unanswered: bool = False) -> Iterator[dict[str, Any]]:
    """Give questions, a few with a context of more than 32 tokens; a third without an answer if these are wanted."""
    draw = random.Random(seed)
    for number in range(num_rows):
        asked, lacking = draw.choice(list(ASKED)), unanswered and number % 3 == 0
        words = draw.choices(FILLERS, k=draw.randint(2, 8) + 30 * (number % 10 == 1))
        found = {asked: draw.choice(ASKED[asked])}
        if draw.random() < 0.2:
            found |= {kind: draw.choice(several) for kind, several in ASKED.items() if kind != asked}
        for word in found.values() if not lacking else ():
            words.insert(draw.randint(0, len(words)), f"very {word}" if draw.random() < 0.5 else word)
        context = " ".join(words)
        answers: dict[str, list] = {"text": [], "answer_start": []}
        if not lacking:
            answer = next(each for each in words if each.split()[-1] == found[asked])
            answers = {"text": [answer], "answer_start": [context.index(answer)]}
        yield {
            "id": f"q{seed}-{number}",
            "question": f"{asked} {draw.choice(FILLERS[:5])}",
            "context": context,
            "answers": answers,
        }


def write_rows(path: Path, num_rows: int, seed: int, *, unanswered: bool = False) -> Path:
    """Write a question a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(num_rows, seed, unanswered=unanswered)))
    return path


def write_squad(path: Path, num_rows: int, seed: int, *, unanswered: bool = False, **more: Any) -> Path:
    """Write the same questions as a file of SQuAD, several to a paragraph and an article where they can be."""
    articles: list[dict[str, Any]] = []
    for number, row in enumerate(rows(num_rows, seed, unanswered=unanswered)):
        several = list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True))
        asked: dict[str, Any] = {"id": row["id"], "question": row["question"]}
        asked["answers"] = [{"text": text, "answer_start": start} for text, start in several]
        if unanswered:
            asked |= {"is_impossible": not several}
        if not number % 4:
            articles.append({"title": f"article {number // 4}", "paragraphs": []})
        articles[-1]["paragraphs"].append({"context": row["context"], "qas": [asked]})
    path.write_text(json.dumps({"version": "v2.0" if unanswered else "1.1", "data": articles}, **more))
    return path
