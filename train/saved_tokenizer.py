"""The files of a tokenizer beside a model, which load as a tokenizer that cuts text as this one does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ringtune.train.contract import UsageError
from ringtune.train.slow_tokenizer import merges


def write(tokenizer: Any, folder: Path) -> None:
    """Write the files of a tokenizer. Raises UsageError if they would load as one of other merges.

    BertweetTokenizer of transformers 5 writes its merges without the column of their frequencies, and when it is loaded
    leaves out the last column all the same. The files that it was loaded from then stand in for what it writes.
    """
    tokenizer.save_pretrained(folder)
    if not merges(tokenizer) or _merges_of(tokenizer, folder) == merges(tokenizer):
        return
    for name, path in _own_files(tokenizer).items():
        shutil.copyfile(path, folder / name)
    if _merges_of(tokenizer, folder) != merges(tokenizer):
        raise UsageError(
            "--model_name_or_path",
            f"its {type(tokenizer).__name__} cuts text otherwise when it is saved and loaded again",
            legal="a tokenizer that can be saved beside the model, as one with tokenizer.json can",
        )


def _own_files(tokenizer: Any) -> dict[str, Path]:
    """Return the vocabulary files that a tokenizer was loaded from, by their usual names."""
    named = getattr(tokenizer, "vocab_files_names", {})
    found = {name: tokenizer.init_kwargs.get(key) or getattr(tokenizer, key, None) for key, name in named.items()}
    return {name: Path(path) for name, path in found.items() if path and Path(path).is_file()}


def _merges_of(tokenizer: Any, folder: Path) -> list[Any]:
    """Return the merges that the files in a folder load with."""
    return merges(type(tokenizer).from_pretrained(folder))
