"""Adapters in folders, made without training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from ringtune.train import adapter, checkpoint, model
from ringtune.train import task as tasks
from ringtune.train.config import TrainConfig
from ringtune.train.tokenizer import load_tokenizer
from safetensors.torch import save_file


def settings(folder: Path | str, **changes: object) -> TrainConfig:
    return TrainConfig(model_name_or_path=str(folder), train_file="rows.csv", **changes)  # type: ignore[arg-type]


def write_adapter(path: Path, base: Path, task: tasks.Task, scale: float = 1.0) -> Path:
    """Write a folder with a drawn adapter of a task, and return it."""
    network = model.load_model(settings(base, lora_r=4), task)
    torch.manual_seed(2)
    own = adapter.of(network)
    assert own is not None
    own.restore({name: torch.randn_like(each) * scale for name, each in own.tensors().items()}, "here")
    path.mkdir()
    for name, content in model.pretrained_files(network, load_tokenizer(str(base))).items():
        (path / name).write_bytes(content)
    (path / "task.json").write_bytes(tasks.to_bytes(task, 48))
    save_file({name: each.contiguous() for name, each in own.tensors().items()}, path / checkpoint.ADAPTER_FILE)
    return path


def tensors_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    own = adapter.of(network)
    assert own is not None
    return own.tensors()


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))
