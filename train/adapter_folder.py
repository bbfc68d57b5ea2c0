"""An adapter in a folder, as peft leaves it, and the model that it belongs to, its base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import adapter_settings, weights
from ringtune.train.checkpoint import ADAPTER_FILE
from ringtune.train.contract import UsageError
from safetensors.torch import load as load_tensors

PREFIX = "base_model.model."  # of each tensor's name in an adapter's file
PICKLE = "adapter_model.bin"
_HEADS = (".classifier.weight", ".out_proj.weight", ".score.weight", ".qa_outputs.weight")


@dataclass(frozen=True)
class AdapterFolder:
    """What an adapter's folder says, without its tensors."""

    path: Path
    settings: Mapping[str, Any]  # content of adapter_config.json
    base: str  # a folder, or a hub name
    base_digest: str | None  # of the base's weights; None: another program wrote the folder

    @property
    def where(self) -> str:
        """The folder, for an error message."""
        return f"--model_name_or_path {self.path}"

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers for the model, "" where the settings do not say it."""
        found = adapter_settings.model_of(self.settings)
        return f"AutoModelFor{found}" if found else ""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by their names in the file. Raises UsageError for a file that cannot be read."""
        try:
            return load_tensors((self.path / ADAPTER_FILE).read_bytes())
        except Exception as error:  # safetensors has an exception of its own kind
            raise UsageError(
                self.where, f"{ADAPTER_FILE} cannot be read: {weights.reason(error)}", legal="the file as peft wrote it"
            ) from None

    def head_settings(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Return ``num_labels`` as the adapter's own head has them; nothing if it has none. **Pure.**

        For an adapter of another program, which may have another head than its base.
        """
        last = [name for name in tensors if name.endswith(_HEADS)]
        return {"num_labels": len(tensors[last[-1]])} if last else {}


def find(name: str) -> AdapterFolder | None:
    """Return the adapter in a folder, None for anything else. Raises UsageError for one that cannot be used."""
    path = Path(name).expanduser()
    if not (path / weights.ADAPTER).is_file():
        return None
    where = f"--model_name_or_path {name}"
    settings = adapter_settings.of_file(path / weights.ADAPTER, f"{where}: {weights.ADAPTER}")
    if not (path / ADAPTER_FILE).is_file():
        has_pickle = (path / PICKLE).is_file()
        raise UsageError(
            where,
            f"it is an adapter and has no {ADAPTER_FILE}" + (f"; {PICKLE} is a pickle, which is not read" * has_pickle),
            legal="an adapter as peft's save_pretrained() leaves it",
            todo="save it again with a newer peft" if has_pickle else "check the folder",
        )
    adapter_settings.require_peft(where)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UsageError(where, f"{weights.ADAPTER} names no base model", legal="base_model_name_or_path in it")
    _require_base(base, where)
    return AdapterFolder(path, settings, base, _digest_in(path))


def base_of(name: str) -> str:
    """Return the model of an adapter's folder, any other name as it is. Raises UsageError as `find`."""
    found = find(name)
    return name if found is None else found.base


def _digest_in(path: Path) -> str | None:
    """Return the digest of the base's weights that an adapter's folder holds, None for a folder without one."""
    if not (path / weights.BASE).is_file():
        return None
    try:
        return str(json.loads((path / weights.BASE).read_bytes())["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            str(path / weights.BASE), f"it cannot be read: {error}", legal="the file as ringtune wrote it"
        ) from None


def _require_base(base: str, where: str) -> None:
    """Raise UsageError for a base that is not there."""
    if Path(base).expanduser().is_dir():
        return
    todo = "put the base there; a link to where it is now will do"
    if not base.startswith(("/", ".", "~")) and base.count("/") <= 1:
        todo = "run once where there is a network, which keeps the base for later, or check the name"
        import transformers

        try:
            transformers.PretrainedConfig.get_config_dict(base)
            return
        except Exception:  # whatever the hub's client raises without a network, or for a name that it does not know
            pass
    raise UsageError(
        where,
        f"it is an adapter, and its base model is not there: {base}",
        legal="a folder, or a name that the hub has",
        todo=todo,
    )
