"""An earlier run, as a later one takes it up: what of its settings becomes the later one's, and what cannot be.

Imports nothing heavy: a run that is not there is refused before anything else is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.train.contract import CHECKPOINT_PREFIX, CONFIG_FILE, TASK_FILE, UsageError

KINDS = ("classification", "multi_label", "regression", "token_classification")
INIT_FROM, REPLAY = "--init_from", "--replay"
STATE_FILE = "state.json"  # of a checkpoint


def take_over(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a command line with what the run of ``--init_from`` gives those that are not set.

    Raises UsageError for a run whose task cannot be read, or is of a kind that cannot be gone on with.
    """
    result = dict(settings)
    run = settings.get("init_from", "null")
    if run == "null":
        return result
    task = read_task(run, f"{INIT_FROM} {run}")
    if task["kind"] not in KINDS:
        raise UsageError(
            f"{INIT_FROM} {run}",
            f"its task is {task['kind']}",
            legal=f"one of {', '.join(KINDS)}",
            todo=f"--model_name_or_path {run} takes over its encoder alone",
        )
    found = {"model_name_or_path": run, "max_seq_length": str(task["max_seq_length"])}
    text, label = task.get("text_columns") or [], task.get("label_column")
    if text and label and "task_name" not in settings:
        # A name with a comma in it would be read as two.
        found |= {} if any("," in each for each in text) else {"text_column_names": ",".join(text)}
        found["label_column_name"] = label
    windows = task.get("windows")
    if windows is not None and "window_pooling" not in settings:
        found |= {"window_stride": str(windows["stride"]), "window_pooling": str(windows["pooling"])}
    return result | {name: value for name, value in found.items() if settings.get(name, "null") == "null"}


def read_task(run: str, where: str) -> Mapping[str, Any]:
    """Return the content of ``task.json`` of a final folder or a checkpoint. Raises UsageError.

    where: the flag, for messages.
    """
    folder = require_folder(run, where)
    try:
        content = json.loads((folder / TASK_FILE).read_bytes())
        _require_form(content)
    except FileNotFoundError:
        raise _unfinished(folder, where) from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            where, f"its {TASK_FILE} cannot be read: {' '.join(str(error).split())[:200]}", legal="as ringtune wrote it"
        ) from None
    found: Mapping[str, Any] = content
    return found


def _require_form(content: Any) -> None:
    """Raise ValueError for the content of a ``task.json`` that is of another form. **Pure.**"""
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ValueError("it names no kind of task")
    windows, texts = content.get("windows"), content.get("text_columns")
    fits = {
        "max_seq_length": _is_count(content.get("max_seq_length")),
        "text_columns": texts is None or (isinstance(texts, list) and all(isinstance(each, str) for each in texts)),
        "label_column": isinstance(content.get("label_column"), str | None),
        "label_separator": isinstance(content.get("label_separator"), str | None),
        "windows": windows is None
        or (isinstance(windows, dict) and _is_count(windows.get("stride")) and isinstance(windows.get("pooling"), str)),
    }
    wrong = next((name for name, is_fit in fits.items() if not is_fit), None)
    if wrong is not None:
        raise ValueError(f"its {wrong} is {content.get(wrong)!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require_folder(run: str, where: str) -> Path:
    """Return the folder of an earlier run. Raises UsageError if there is none."""
    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise UsageError(
            where, "there is no such folder", legal="the final folder of an earlier run, or one of its checkpoints"
        )
    return folder


def _unfinished(folder: Path, where: str) -> UsageError:
    """Return the error of a folder without a task."""
    checkpoints = sorted(each.name for each in folder.glob(f"{CHECKPOINT_PREFIX}*"))
    if checkpoints or (folder / CONFIG_FILE).exists():
        todo = f"finish it, or name one of its checkpoints, such as {checkpoints[-1]}" if checkpoints else "finish it"
        return UsageError(where, "the run in it has not finished", legal="a run that has finished", todo=todo)
    return UsageError(where, f"it has no {TASK_FILE}", legal="the folder of a run of ringtune-train, or a checkpoint")


def settings_of(run: str, where: str) -> dict[str, Any]:
    """Return the settings of an earlier run. Raises UsageError if they cannot be read."""
    import yaml

    folder = require_folder(run, where)
    try:
        if (folder / CONFIG_FILE).is_file():
            found = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        else:
            found = json.loads((folder / STATE_FILE).read_bytes())["config"]
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(
            where,
            f"its settings cannot be read: {' '.join(str(error).split())[:200]}",
            legal=f"a folder with {CONFIG_FILE}, or a checkpoint, as ringtune wrote it",
        ) from None


def split_replay(text: str) -> tuple[str, float]:
    """Return the run and the share of ``RUN=0.2``. **Pure.** Raises UsageError for anything else."""
    run, _, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not run or not 0 < value < 1:
        raise UsageError(
            REPLAY,
            f"{text!r} names no run and its share",
            legal="RUN=SHARE, the share of each global batch above 0 and below 1",
            todo="such as --replay runs/before=0.2",
        )
    return run, value


def check(config: Any) -> None:
    """Raise UsageError for settings of earlier runs that cannot work. config: of training."""
    run = config.init_from
    if run and _resolved(config.model_name_or_path) != _resolved(run):
        raise UsageError(
            f"{INIT_FROM} --model_name_or_path",
            f"{run} and {config.model_name_or_path} are two models to start from",
            legal="one of them, or both with the same folder",
        )
    if config.replay:
        split_replay(config.replay)
    _check_pseudo(config)
    for name in ("keep_close", "keep_answers"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}", f"{getattr(config, name)} is negative", legal="a number from 0, such as 0.1")
        if getattr(config, name) and not run:
            raise UsageError(f"--{name}", "there is no run to stay close to", legal="with --init_from")
    if config.keep_answers and config.resize_token_embeddings:
        raise UsageError(
            "--keep_answers --resize_token_embeddings",
            "both are set: the earlier model does not know the new tokens",
            legal="one of them",
        )
    if not config.keep_close:
        return
    for name in ("lora_r", "peft_config", "reinit_layers"):
        if getattr(config, name):
            raise UsageError(
                f"--keep_close --{name}",
                "both are set: an adapter has nothing of the earlier run to stay close to"
                if name != "reinit_layers"
                else "both are set: what starts from random weights is not to stay close to the earlier ones",
                legal="one of them",
            )


def _check_pseudo(config: Any) -> None:
    if not 0 < config.pseudo_weight <= 1:
        raise UsageError("--pseudo_weight", f"{config.pseudo_weight} is out of range", legal="0 < value <= 1")
    if config.pseudo_weight != 1 and not config.pseudo_file:
        raise UsageError("--pseudo_weight", "there are no rows that it weighs", legal="with --pseudo_file")


def _resolved(name: str) -> Path:
    return Path(name).expanduser().resolve()
