"""Which settings of the wire go together: how gradients are sent, and in which mode."""

from __future__ import annotations

from typing import Any

from ringtune.train.arguments import Value
from ringtune.train.contract import UsageError


def imply(settings: dict[str, Value]) -> dict[str, Value]:
    """Return --compression and --fp16_allreduce of a source that has one of them: two names of one thing. **Pure.**

    Raises UsageError where it has both and they disagree.
    """
    half, compression = settings.get("fp16_allreduce"), settings.get("compression")
    if compression is None:
        return {"compression": "fp16"} if half == "true" else {}
    is_half = "true" if compression == "fp16" else "false"
    if half is not None and half != is_half:
        raise _disagree(str(half), str(compression))
    return {"fp16_allreduce": is_half}


def check(config: Any) -> None:
    """Raise UsageError for a way of sending gradients that does not go with the other settings. **Pure.**"""
    compression = config.compression
    if config.fp16_allreduce != (compression == "fp16"):
        raise _disagree(str(config.fp16_allreduce).lower(), compression)
    where = "--fp16_allreduce" if config.fp16_allreduce else f"--compression {compression}"
    if config.mode == "exact" and compression == "acp":
        raise UsageError(
            where,
            "exact mode gives the same bits at any world size; the errors of low rank are kept by rank",
            legal="--compression none in exact mode",
            todo="--mode fast, or leave it out",
        )
    if config.mode == "exact" and compression != "none":
        raise UsageError(where, "exact mode sums integers", legal=f"{compression} on the wire goes with fast")
    if compression == "acp" and config.fp16:
        raise UsageError(
            where,
            "--fp16 scales the loss and leaves steps out where it overflows: the errors kept would be lost",
            legal="fp32, or --bf16",
            todo="--bf16 instead of --fp16, or another --compression",
        )


def _disagree(half: str, compression: str) -> UsageError:
    return UsageError(
        "--fp16_allreduce --compression",
        f"--fp16_allreduce {half} and --compression {compression} disagree",
        legal="--compression fp16, which is what --fp16_allreduce means",
        todo="give one of them",
    )
