"""Rows for ``beside_trainer.py``, written for the purpose, and a small model with random weights that can learn them.

Names are made of syllables and are no words of the vocabulary: they fall into pieces, and their ending says what they
are. A part of the labels is wrong, so that no score reaches its best value and the spread of seeds can be seen.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

ENDINGS = {"PER": ("ano", "ela"), "LOC": ("burg", "ton"), "ORG": ("corp", "bank")}
VERBS = {"PER": ("met", "called"), "LOC": ("visited", "left"), "ORG": ("joined", "bought")}
FILL = (
    "the",
    "old",
    "new",
    "again",
    "today",
    "and",
    "then",
    "with",
    "near",
    "for",
    "who",
    "where",
    "what",
    "did",
    "is",
)
SYLLABLES = ("ka", "re", "mo", "tu", "li", "sen", "dor", "pa", "vi", "nor")
WRONG = 0.05  # share of labels


def write_model(folder: Path) -> None:
    """Write a tokenizer and a BERT of two layers with random weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*FILL, *(word for each in VERBS.values() for word in each), "?", "."]
    pieces = [
        *letters,
        *(f"##{each}" for each in letters),
        *(f"##{each}" for ends in ENDINGS.values() for each in ends),
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys([*special, *words, *SYLLABLES, *pieces])) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=128)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)


def name(draw: random.Random, kind: str) -> str:
    """Return a name of a kind."""
    return "".join(draw.choices(SYLLABLES, k=draw.randint(1, 2))) + draw.choice(ENDINGS[kind])


def sentence(draw: random.Random) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Return the words of a sentence, and its entities: kind, first word, the word behind the last one."""
    words, found = [], []
    for _ in range(draw.randint(1, 3)):
        kind = draw.choice(list(ENDINGS))
        words += [*draw.choices(FILL[:10], k=draw.randint(0, 2)), draw.choice(VERBS[kind])]
        length = draw.randint(1, 2)
        found.append((kind, len(words), len(words) + length))
        words += [name(draw, kind) for _ in range(length)]
    return [*words, "."], found


def write_tags(path: Path, num_rows: int, seed: int) -> None:
    """Write rows of words with tags of IOB2, as JSON lines."""
    draw = random.Random(seed)
    with path.open("w") as stream:
        for _ in range(num_rows):
            words, found = sentence(draw)
            tags = ["O"] * len(words)
            for kind, start, stop in found:
                kind = draw.choice(list(ENDINGS)) if draw.random() < WRONG else kind
                tags[start:stop] = [f"B-{kind}", *[f"I-{kind}"] * (stop - start - 1)]
            stream.write(json.dumps({"tokens": words, "ner_tags": tags}) + "\n")


def write_questions(path: Path, num_rows: int, seed: int) -> None:
    """Write questions about who, where or what a sentence names, in the form of SQuAD."""
    draw, paragraphs = random.Random(seed), []
    asked = {"PER": "who is the {} ?", "LOC": "where is the {} ?", "ORG": "what is the {} ?"}
    while len(paragraphs) < num_rows:
        words, found = sentence(draw)
        kind, start, stop = draw.choice(found)
        if sum(each == kind for each, _, _ in found) > 1:
            continue
        text, answer = " ".join(words), " ".join(words[start:stop])
        at = len(" ".join(words[:start])) + 1
        question = {
            "id": str(len(paragraphs)),
            "question": asked[kind].format(words[start - 1]),
            "answers": [{"text": answer, "answer_start": at}],
        }
        paragraphs.append({"context": text, "qas": [question]})
    content = {"version": "1.1", "data": [{"title": "names", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content))


def write_endings(path: Path, num_rows: int, seed: int) -> None:
    """Write beginnings of sentences with four ends each, in the form of SWAG: the right one is a name that fits."""
    draw = random.Random(seed)
    columns = ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for _ in range(num_rows):
            kind, label = draw.choice(list(ENDINGS)), draw.randrange(4)
            ends = [name(draw, draw.choice([each for each in ENDINGS if each != kind])) for _ in range(4)]
            ends[label] = name(draw, kind)
            label = draw.randrange(4) if draw.random() < WRONG else label
            before = " ".join(sentence(draw)[0])
            writer.writerow((before, f"then the new {draw.choice(VERBS[kind])}", *ends, label))


def write_text(path: Path, num_rows: int, seed: int) -> None:
    """Write a sentence a line."""
    draw = random.Random(seed)
    path.write_text("".join(" ".join(sentence(draw)[0]) + "\n" for _ in range(num_rows)))
