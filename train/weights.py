"""Which file of a model's folder its weights are read from, and why one cannot be read."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

from ringtune.train.columns import shown_names
from ringtune.train.contract import CHECKPOINT_PREFIX, UsageError

SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # whole, and in shards that the index names
ADAPTER = "adapter_config.json"
BASE = "base.json"  # beside an adapter of ringtune: its base, and the digest of the weights
FOREIGN = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX", "*.gguf": "llama.cpp", "*.ot": "Rust"}


def loading_settings(name: str, *, allow_pickle: bool) -> dict[str, Any]:
    """Return what ``from_pretrained`` must know to read a model's weights: safetensors where there are any.

    A pickle can run any program when it is read. One is read only if it is allowed, and then by torch's reader that
    knows tensors and no programs (``weights_only`` of torch.load). Code that a model brings along never runs. Raises
    UsageError for a folder without weights that can be read.
    """
    folder = Path(name).expanduser()
    safe: bool | None = None if allow_pickle else True
    if folder.is_dir():
        _refuse_adapter(folder)
        _require_config(folder)
        if not has_any(folder, SAFE):
            _require_pickle(folder, allow_pickle=allow_pickle)
            safe = False
    return {"use_safetensors": safe, "weights_only": True, "trust_remote_code": False}


def reason(error: Exception) -> str:
    """Return why a file cannot be read, in a line. Of a pickle torch's own advice is to run what is in it. **Pure.**"""
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"GLOBAL (\S+)", str(error))
        return f"its pickle holds more than tensors ({found[1] if found else 'or is torn'}): nothing of it was run"
    return " ".join(str(error).split())[:300]


def has_any(folder: Path, names: tuple[str, ...]) -> bool:
    """Return whether a folder has one of the files."""
    return any((folder / each).is_file() for each in names)


def _require_pickle(folder: Path, *, allow_pickle: bool) -> None:
    """Raise UsageError for a folder without safetensors that has no pickle, or has one that is not allowed."""
    if not has_any(folder, PICKLES):
        kinds = sorted({kind for pattern, kind in FOREIGN.items() if any(folder.glob(pattern))})
        raise _absent(
            folder,
            SAFE[0],
            f"weights for {', '.join(kinds)} only" if kinds else _shown_files(folder),
            todo="save its PyTorch model with save_pretrained()" if kinds else "check the folder",
        )
    if not allow_pickle:
        raise UsageError(
            f"--model_name_or_path {folder}",
            f"its weights are a pickle ({PICKLES[0]}), which can run any program when it is read",
            legal=f"{SAFE[0]}",
            todo=f"convert it once: ringtune-train convert {folder}; or --allow_pickle true",
        )


def _require_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        has_checkpoints = any(folder.glob(f"{CHECKPOINT_PREFIX}*"))
        todo = f"name one of its folders {CHECKPOINT_PREFIX}..." if has_checkpoints else "check the folder"
        raise _absent(folder, "config.json", _shown_files(folder), todo=todo)


def _absent(folder: Path, name: str, there: str, *, todo: str) -> UsageError:
    return UsageError(
        f"--model_name_or_path {folder}",
        f"it has no {name}; it has {there}",
        legal=f"a folder with config.json, {SAFE[0]} and tokenizer",
        todo=todo,
    )


def _shown_files(folder: Path) -> str:
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    return shown_names(names) if names else "no files"


def _refuse_adapter(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        raise UsageError(
            f"--model_name_or_path {folder}",
            f"it is an adapter ({ADAPTER}), which is no base model for another one",
            legal="a whole model",
            todo="merge it into its model: AutoPeftModelForSequenceClassification.from_pretrained(FOLDER)"
            ".merge_and_unload().save_pretrained(NEW), and copy the tokenizer",
        )
