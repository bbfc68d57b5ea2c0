"""The Trainer side of ``beside_trainer.py``, a process of its own: ``beside_parts.py KIND FOLDER SETTINGS SEED ...``.

A folder of a trained model instead of a seed is scored as it is.

Plain transformers, with the logic of its examples run_ner.py, run_qa.py, run_swag.py and run_mlm.py: nothing of
ringtune is imported. Prints the score of each seed or folder as JSON.
"""

from __future__ import annotations

import collections
import csv
import json
import math
import re
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 64


@dataclass
class Side:
    """What Trainer needs for a kind."""

    model: Any
    train: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    collator: Any
    score: Callable[[Any], float]  # from what Trainer's predict gives


def main() -> None:
    """Train once for each seed and print the scores."""
    kind, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    print(json.dumps([score(kind, folder, settings, each) for each in sys.argv[4:]]))


def score(kind: str, folder: Path, settings: dict[str, Any], which: str) -> float:
    """Return the score of a model: that of a folder, or one that is trained with a seed."""
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

    seed = int(which) if which.isdecimal() else None
    set_seed(seed or 0)  # before the head is drawn
    source = folder / "model" if seed is not None else Path(which)
    side = SIDES[kind](folder, source, AutoTokenizer.from_pretrained(folder / "model"))
    num_steps = math.ceil(len(side.train) / settings["global_batch_size"]) * settings["num_train_epochs"]
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        seed=seed or 0,
        per_device_train_batch_size=settings["global_batch_size"],
        learning_rate=settings["learning_rate"],
        num_train_epochs=settings["num_train_epochs"],
        weight_decay=0.01,
        warmup_steps=math.ceil(0.1 * num_steps),
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model=side.model, args=arguments, train_dataset=side.train, data_collator=side.collator)
    if seed is not None:
        trainer.train()
    set_seed(0)  # masks of the validation rows are the same for every model
    return side.score(trainer.predict(side.dev))


def token_classification(folder: Path, source: Path, tokenizer: Any) -> Side:
    """run_ner.py: the first piece of a word has its tag, the others none; F1 of entities."""
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

    rows = {split: [json.loads(line) for line in (folder / f"{split}.json").open()] for split in ("train", "dev")}
    names = sorted({tag for row in rows["train"] for tag in row["ner_tags"]})

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=LENGTH)
        labels, before = [], None
        for word in found.word_ids():
            labels.append(-100 if word is None or word == before else names.index(row["ner_tags"][word]))
            before = word
        return {**found, "labels": labels}

    def score(predicted: Any) -> float:
        right = guessed = true = 0
        for logits, labels in zip(predicted.predictions.argmax(-1), predicted.label_ids, strict=True):
            kept = labels != -100
            found, wanted = (entities([names[each] for each in row[kept]]) for row in (logits, labels))
            right, guessed, true = right + len(found & wanted), guessed + len(found), true + len(wanted)
        return 2 * right / max(1, guessed + true)

    model = AutoModelForTokenClassification.from_pretrained(source, num_labels=len(names))
    return Side(
        model,
        list(map(encode, rows["train"])),
        list(map(encode, rows["dev"])),
        DataCollatorForTokenClassification(tokenizer),
        score,
    )


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of tags, as seqeval's default mode has it: an I- of another type, or behind O, begins one."""
    found: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        kind, before = tag[2:], tags[place - 1] if place else "O"
        if tag == "O":
            continue
        if tag[0] == "B" or before[2:] != kind:
            found.append((kind, place, place + 1))
        else:
            found[-1] = (kind, found[-1][1], place + 1)
    return set(found)


def questions(path: Path) -> list[dict[str, Any]]:
    """Return the questions of a file of SQuAD, each with its context."""
    articles = json.loads(path.read_text())["data"]
    return [
        {**each, "context": part["context"]}
        for article in articles
        for part in article["paragraphs"]
        for each in part["qas"]
    ]


def question_answering(folder: Path, source: Path, tokenizer: Any) -> Side:
    """run_qa.py for contexts of one window: the best span of start and end; mean F1 of words, as SQuAD's script."""
    from transformers import AutoModelForQuestionAnswering, default_data_collator

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(
            row["question"],
            row["context"],
            truncation="only_second",
            max_length=LENGTH,
            padding="max_length",
            return_offsets_mapping=True,
        )
        offsets, parts = found.pop("offset_mapping"), found.sequence_ids()
        first = row["answers"][0]["answer_start"]
        last = first + len(row["answers"][0]["text"])
        inside = [i for i, part in enumerate(parts) if part == 1 and first <= offsets[i][0] and offsets[i][1] <= last]
        return {**found, "start_positions": inside[0], "end_positions": inside[-1]}

    dev = questions(folder / "dev.json")

    def score(predicted: Any) -> float:
        starts, ends = predicted.predictions[:2]
        total = 0.0
        for row, start, end in zip(dev, starts, ends, strict=True):
            total += word_f1(best_span(tokenizer, row, start, end), row["answers"][0]["text"])
        return total / len(dev)

    model = AutoModelForQuestionAnswering.from_pretrained(source)
    return Side(
        model, list(map(encode, questions(folder / "train.json"))), list(map(encode, dev)), default_data_collator, score
    )


def best_span(tokenizer: Any, row: dict[str, Any], start: np.ndarray, end: np.ndarray) -> str:
    """Return the text of the best span of at most 30 tokens. start, end: logits of a row."""
    pair, cut = (row["question"], row["context"]), {"max_length": LENGTH, "truncation": "only_second"}
    found = tokenizer(*pair, **cut, return_offsets_mapping=True)
    places = [i for i, part in enumerate(found.sequence_ids()) if part == 1]
    _, first, last = max((start[i] + end[j], i, j) for i in places for j in places if i <= j < i + 30)
    return str(row["context"][found["offset_mapping"][first][0] : found["offset_mapping"][last][1]])


def word_f1(guess: str, truth: str) -> float:
    """Return F1 of the words of an answer, without case, punctuation and articles."""

    def words(text: str) -> list[str]:
        text = "".join(each for each in text.lower() if each not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    guessed, true = words(guess), words(truth)
    same = sum((collections.Counter(guessed) & collections.Counter(true)).values())
    return 2 * same / max(1, len(guessed) + len(true))


def multiple_choice(folder: Path, source: Path, tokenizer: Any) -> Side:
    """run_swag.py: the first sentence beside the second one with each ending; accuracy."""
    from transformers import AutoModelForMultipleChoice, DataCollatorForMultipleChoice

    def read(split: str) -> list[dict[str, Any]]:
        with (folder / f"{split}.csv").open(newline="") as stream:
            return list(map(encode, csv.DictReader(stream)))

    def encode(row: dict[str, str]) -> dict[str, Any]:
        seconds = [f"{row['sent2']} {row[f'ending{number}']}" for number in range(4)]
        found = tokenizer([row["sent1"]] * 4, seconds, truncation=True, max_length=LENGTH)
        return {**found, "labels": int(row["label"])}

    def score(predicted: Any) -> float:
        return float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())

    model = AutoModelForMultipleChoice.from_pretrained(source)
    return Side(model, read("train"), read("dev"), DataCollatorForMultipleChoice(tokenizer), score)


def masked_lines(folder: Path, source: Path, tokenizer: Any) -> Side:
    """run_mlm.py with --line_by_line: 15 % of the tokens of a line are asked for; the loss of one draw of them."""
    return masked(folder, source, tokenizer, lambda rows: rows)


def masked_joined(folder: Path, source: Path, tokenizer: Any) -> Side:
    """run_mlm.py without it: lines, with their special tokens, are joined and cut; a shorter rest is left out."""

    def join(rows: list[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
        joined = {name: [each for row in rows for each in row[name]] for name in rows[0]}
        stop = len(joined["input_ids"]) // LENGTH * LENGTH
        return [
            {name: each[start : start + LENGTH] for name, each in joined.items()} for start in range(0, stop, LENGTH)
        ]

    return masked(folder, source, tokenizer, join)


def masked(folder: Path, source: Path, tokenizer: Any, join: Callable[[list[Any]], list[Any]]) -> Side:
    """Return the side of masked language modelling. join: from lines of tokens to rows."""
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling

    def read(split: str) -> list[dict[str, Any]]:
        lines = (folder / f"{split}.txt").read_text().splitlines()
        cut = {"truncation": True, "max_length": LENGTH, "return_special_tokens_mask": True}
        return join([dict(tokenizer(line, **cut)) for line in lines])

    def score(predicted: Any) -> float:
        return float(predicted.metrics["test_loss"])

    model = AutoModelForMaskedLM.from_pretrained(source)
    return Side(model, read("train"), read("dev"), DataCollatorForLanguageModeling(tokenizer), score)


SIDES: dict[str, Callable[[Path, Path, Any], Side]] = {
    "token_classification": token_classification,
    "question_answering": question_answering,
    "multiple_choice": multiple_choice,
    "masked_lines": masked_lines,
    "masked_joined": masked_joined,
}
if __name__ == "__main__":
    main()
