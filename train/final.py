"""The final model of a run, written where the Hugging Face Trainer would, with the checksums of its files.

``manifest.json`` is written last and withdrawn first: a run whose manifest fits has finished, and its model is whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.train import disk, publish, weights
from ringtune.train.checkpoint import ADAPTER_FILE, MODEL_FILE, STATE_FILE, weights_file
from ringtune.train.contract import CONFIG_FILE, FINISHED_FILE, MANIFEST_FILE, TASK_FILE, UsageError

MERGED_DIR = "merged"  # the whole model of a run that trained an adapter, if it is asked for
#: What of a run's folder is of its final model, beside small files that the next one replaces. The settings of a model
#: must not stay beside an adapter, nor those of an adapter beside a model: transformers takes the folder for the other.
WEIGHTS = (MODEL_FILE, ADAPTER_FILE, MERGED_DIR, weights.ADAPTER, weights.BASE, "config.json")


def write(
    folder: Path,
    model: memoryview,
    files: Mapping[str, bytes],
    facts: Mapping[str, Any],
    *,
    weights_file: str = MODEL_FILE,
) -> None:
    """Write the model that ``from_pretrained`` loads, and that the run has finished. **Rank 0 only.**

    model: content of ``weights_file``. files: configuration, tokenizer and task. facts: for ``finished.json``.
    """
    withdraw(folder)
    written: dict[str, bytes | memoryview] = {**files, weights_file: model, FINISHED_FILE: json.dumps(facts).encode()}
    for name, content in written.items():
        disk.replace_file(folder / name, content)
    contents = {**written, CONFIG_FILE: (folder / CONFIG_FILE).read_bytes()}
    entries = {name: publish.entry_of(content) for name, content in contents.items()}
    disk.replace_file(folder / MANIFEST_FILE, publish.manifest_bytes(entries))


def write_merged(folder: Path, model: memoryview | None, files: Mapping[str, bytes]) -> None:
    """Write the whole model of a run that trained an adapter to a folder of its own; None: remove an earlier one.
    **Rank 0 only**, before `write`: killed in between, the run has not finished and does both again.

    model: content of ``model.safetensors``. files: configuration, tokenizer and task.
    """
    publish.remove(folder / MERGED_DIR)
    if model is not None:
        contents: dict[str, bytes | memoryview] = {**files, MODEL_FILE: model}
        with publish.new_folder(folder / MERGED_DIR) as new:
            for name, content in contents.items():
                new.write(name, content)


def withdraw(folder: Path) -> None:
    """Make a run that has finished one that has not. **Rank 0 only.**"""
    for name in (MANIFEST_FILE, FINISHED_FILE):
        (folder / name).unlink(missing_ok=True)


def verify(folder: Path) -> str | None:
    """Return why the final model of a run is not whole, None if it is. Reads every byte."""
    return publish.verify_folder(folder, (weights_file(folder), TASK_FILE, FINISHED_FILE, CONFIG_FILE))


def require_whole(name: str, *, flag: str = "--model_name_or_path", read_up_to: float = math.inf) -> None:
    """Raise UsageError for the model of a run, or its checkpoint, that is not as ringtune wrote it.

    flag: that names it. read_up_to: bytes of a file; of larger ones only the size is looked at.

    Each of several files shows that a folder is one of these, so that no single one that is lost hides it. A model that
    was copied without the files of its run is taken as it is.
    """
    folder = Path(name).expanduser()
    has_task, has_settings, has_manifest, has_state, has_finished = (
        (folder / each).exists() for each in (TASK_FILE, CONFIG_FILE, MANIFEST_FILE, STATE_FILE, FINISHED_FILE)
    )
    if not has_finished and not has_state and not (has_task and (has_manifest or has_settings)):
        return
    reason: str | None
    if has_state or has_finished or has_manifest:
        reason = publish.verify_folder(folder, read_up_to=read_up_to)
        todo = "the same training command writes the final model again from a checkpoint"
    else:
        reason, todo = "the run in it has not finished", "finish it, or name one of its checkpoints"
    if reason is not None:
        raise UsageError(f"{flag} {name}", reason, legal="a model as ringtune wrote it", todo=todo)
