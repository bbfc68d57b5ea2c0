"""A run of a few steps that saves, evaluates and rotates, and its flags."""

from __future__ import annotations

from pathlib import Path

from conftest import Workshop

SHORT: dict[str, object] = {
    "max_steps": 4,
    "save_steps": 2,
    "eval_steps": 2,
    "eval_strategy": "steps",
    "save_total_limit": 1,
    "mode": "exact",
    "num_shards": 2,
    "log_row_ids": "false",
    "disable_tqdm": "true",
    "report_to": "tensorboard",
}


def run_flags(workshop: Workshop, run: Path, **changes: object) -> dict[str, str]:
    """Return the flags of a short run by name."""
    words = workshop.arguments(run, **{**SHORT, **changes})
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
