"""The command ``ringtune-train convert``: weights that are a pickle become ``model.safetensors`` beside it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringtune.train import disk, publish, weights
from ringtune.train.contract import EXIT_FINISHED, EXIT_USAGE, UsageError, as_usage

NAME = "convert"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"ringtune-train {NAME}",
        description="Write model.safetensors beside the pytorch_model.bin of a model's folder, which stays. The pickle "
        "is read by torch's reader that knows tensors and runs no program.",
        epilog="exit codes: 0 converted, 2 it cannot be (the reason is named)",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a model's folder")
    folder = parser.parse_args(argv).folder.expanduser()
    try:
        print(f"{convert(folder)}: written")
    except (UsageError, OSError) as error:
        usage = as_usage(error)
        if not isinstance(usage, UsageError):
            raise
        print(f"ringtune-train {NAME}: {usage}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_FINISHED


def convert(folder: Path) -> Path:
    """Write the weights of a folder as safetensors and return the file. Raises UsageError, OSError.

    A crash leaves the whole file or none under its name; the rest of an earlier crash is removed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / weights.SAFE[0]
    if not folder.is_dir() or not weights.has_any(folder, weights.PICKLES):
        raise UsageError(str(folder), f"no {weights.PICKLES[0]} is there", legal="the folder of a model with one")
    if weights.has_any(folder, weights.SAFE):
        raise UsageError(str(folder), f"it has {target.name} already", legal="a folder without", todo="use it as it is")
    tensors = _read(folder)
    publish.remove_left_behind(folder, weights.SAFE[0])
    temporary = publish.temporary_file(folder, weights.SAFE[0])
    try:
        save_file(tensors, temporary, {"format": "pt"})  # transformers reads no file without that word
        disk.flush(temporary)
        return disk.rename(temporary, target)
    except SafetensorError as error:
        raise UsageError(str(target), f"it cannot be written: {error}", legal="free space, and permission") from None
    finally:
        temporary.unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, Any]:
    """Return all weights of a folder's pickle, of all its shards; each has memory of its own, as safetensors wants it.

    Tied weights are there under each of their names: which one a model asks for is not known here.
    """
    import torch

    found: dict[str, torch.Tensor] = {}
    for path in _shards(folder):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of a torn file, of one that is no pickle, of a program in it
            raise UsageError(
                str(path), f"it cannot be read: {weights.reason(error)}", legal="a pickle of tensors alone"
            ) from None
        if not isinstance(content, dict) or not all(isinstance(each, torch.Tensor) for each in content.values()):
            raise UsageError(
                str(path),
                "it holds more than weights by their names",
                legal="what torch.save(model.state_dict(), FILE) writes",
            )
        found |= content
    owners: set[int] = set()
    for name, tensor in found.items():
        storage = tensor.untyped_storage().data_ptr()
        found[name] = tensor.detach().clone().contiguous() if storage in owners else tensor.detach().contiguous()
        owners.add(storage)
    return found


def _shards(folder: Path) -> list[Path]:
    """Return the files of a folder's pickle. Raises UsageError for an index that names what is not in the folder."""
    whole, index = (folder / each for each in weights.PICKLES)
    if whole.is_file():
        return [whole]
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(str(index), f"it cannot be read: {error}", legal="the index of a model in shards") from None
    missing = [each for each in names if Path(each).name != each or not (folder / each).is_file()]
    if missing or not names:
        raise UsageError(
            str(index), f"it names {missing[:1] or 'no file'}, not in the folder", legal="all of its shards"
        )
    return [folder / each for each in names]
