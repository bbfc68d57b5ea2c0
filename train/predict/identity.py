"""What a prediction is made from: what decides its output, written beside it, and compared.

On one kind of processor it decides every bit. Another kind may do the rest, as `--use_cpu` may change; its last digits
are others, which a line says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringtune.train import disk, flags
from ringtune.train.contract import UsageError
from ringtune.train.predict.config import PredictConfig

START_AGAIN = "use --overwrite_output to start again, or write to another --output"


@dataclass(frozen=True)
class Identity:
    """What decides the output, every bit of it on one kind of processor."""

    settings: Mapping[str, Any]
    digests: Mapping[str, str]  # of model, tokenizer, input and software
    processor: str  # of rank 0, of `device.processor_of`; "" where an earlier version wrote it

    @classmethod
    def read(cls, path: Path) -> tuple[Identity, str]:
        """Return what `write` wrote to a file. Raises UsageError if it is not there as it was written."""
        try:
            content = json.loads(path.read_bytes())
            checksum = content.pop("checksum")
            if checksum != _checksum(content):
                raise ValueError("its checksum differs")
            return cls(content["settings"], content["digests"], content.get("processor", "")), content["output"]
        except (OSError, ValueError, AttributeError, KeyError) as error:
            raise UsageError(
                str(path), f"it cannot be read: {error!r}", legal="the file ringtune wrote", todo=START_AGAIN
            ) from None

    def write(self, path: Path, output: str = "") -> None:
        """Write it to a file, with the sha256 of the output if that is there."""
        content = {**asdict(self), "output": output}
        disk.replace_file(path, json.dumps({**content, "checksum": _checksum(content)}, indent=1).encode())


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_other(saved: Identity, identity: Identity, where: str) -> None:
    """Raise UsageError naming what differs between what was made and what is to be made."""
    for name, digest in identity.digests.items():
        if saved.digests.get(name) != digest:
            raise UsageError(
                where,
                f"the {name} has changed since this was begun",
                legal=f"the same {name}, byte for byte",
                todo=f"put it back, or {START_AGAIN}",
            )
    flags.refuse_changes(saved.settings, PredictConfig(**identity.settings), START_AGAIN)


def processor_note(saved: Identity, identity: Identity) -> str:
    """Return that another kind of processor does the rest of what was begun, "" if it does not, or may not."""
    if saved.processor in ("", identity.processor):
        return ""
    return (
        f"they were begun on {saved.processor}, and {identity.processor} does the rest: its numbers may differ in the "
        "last digits; remove them to predict all rows again"
    )
