"""Folders of earlier runs, made without training: what a later run reads of them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from ringtune.train import config, model
from ringtune.train import task as tasks
from ringtune.train.columns import Columns
from ringtune.train.task import Task
from ringtune.train.task.classification import Classification
from tiny import make_tokenizer

TWO = Classification(Columns(("text",), "label"), ("down", "up"))


def write_task(folder: Path, task: Task) -> Path:
    """Write a folder that has what a task is, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_bytes(tasks.to_bytes(task, 16))
    return folder


def write_model(folder: Path, task: Task, base: Path) -> Path:
    """Write the model of a task, its head moved as training does; base: of its body."""
    network = model.load_model(config.TrainConfig(str(base)), task)
    with torch.no_grad():
        network.classifier.bias.uniform_(-1, 1)
        network.classifier.weight.mul_(-2)  # a later head of the same seed begins with the same numbers
    network.save_pretrained(folder)
    make_tokenizer(folder)
    return write_task(folder, task)


def write_rows(folder: Path, settings: dict, digest: str | None, task: Task = TWO) -> Path:
    """Write what a later run reads of an earlier one's rows: its settings, its task, and the digest of what it read."""
    write_task(folder, task)
    (folder / "config.yaml").write_text(json.dumps(settings))
    (folder / "finished.json").write_text(json.dumps({} if digest is None else {"rows_digest": digest}))
    return folder
