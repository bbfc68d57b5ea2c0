"""What each rank keeps of its own from step to step, beside the model: one file a rank in a checkpoint.

Each rank writes its own, under a temporary name in the run directory, which all ranks share; rank 0 moves them into the
checkpoint that it publishes, with their checksums in its manifest. Killed in between, they are removed like everything
that a killed save left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ringtune.train import disk, publish
from ringtune.train.contract import MANIFEST_FILE, UsageError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

NAME = re.compile(r"rank-(\d{5})\.safetensors")


@dataclass(frozen=True)
class Part:
    """The file of one rank, written and not yet in its checkpoint."""

    path: Path
    name: str  # in the checkpoint
    entry: publish.Entry


def write(folder: Path, rank: int, tensors: Mapping[str, torch.Tensor]) -> Part:
    """Write a rank's own state into the run directory, for rank 0 to publish. Raises OSError, UsageError."""
    name = f"rank-{rank:05d}.safetensors"
    content = tensor_bytes({name: each.detach().cpu().contiguous() for name, each in tensors.items()})
    path = publish.temporary_file(folder, name)
    try:
        disk.write_bytes(path, content)
    except FileNotFoundError:
        raise _not_shared(folder, f"rank {rank} does not see what rank 0 made") from None
    return Part(path, name, publish.entry_of(content))


def require_all(parts: list[Part]) -> None:
    """Raise UsageError if a part is not seen by this rank: its rank writes to another folder. **Rank 0 only.**"""
    for rank, part in enumerate(parts):
        if not part.path.exists():
            raise _not_shared(part.path.parent, f"rank 0 does not see what rank {rank} wrote")


def _not_shared(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"--output_dir {folder}",
        what,
        legal="one folder that all ranks share: with --compression acp each writes to it",
        todo="name a folder on a shared file system",
    )


def read(checkpoint: Path, rank: int, world_size: int) -> tuple[dict[str, torch.Tensor], int]:
    """Return what a rank goes on with from a checkpoint, and the number of ranks that wrote it.

    At the same world size it is what the rank had. At another one it is what ranks of then had, each taken by one rank
    of now: their errors are added up, and a rank that gets none has zeros. The sum over all ranks is what it was, and
    only the sum matters. Raises UsageError.
    """
    manifest = json.loads((checkpoint / MANIFEST_FILE).read_bytes())
    names = sorted(name for name in manifest if NAME.fullmatch(name))
    if not names:
        raise UsageError(
            str(checkpoint),
            "it holds no state of single ranks (rank-00000.safetensors)",
            legal="a checkpoint of a run with --compression acp",
        )
    result: dict[str, torch.Tensor] = {}
    for name in names[rank::world_size] or names[:1]:
        tensors = _read_whole(checkpoint / name, manifest[name])
        for key, tensor in tensors.items():
            if key in result and key.endswith("/error"):
                result[key] += tensor
            else:
                result.setdefault(key, tensor)
    if rank >= len(names):
        result = {key: torch.zeros_like(each) if key.endswith("/error") else each for key, each in result.items()}
    return result, len(names)


def _read_whole(path: Path, entry: publish.Entry) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    if publish.entry_of(content) != entry:
        raise UsageError(str(path), "it is not what was written: its sha256 differs", legal="a whole checkpoint")
    return load_tensors(content)
