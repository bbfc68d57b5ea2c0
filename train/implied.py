"""What a user's settings say of others: that --eval_steps asks for evaluation by steps, and which warm-up is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringtune.train import earlier, wire
from ringtune.train.arguments import Value
from ringtune.train.contract import UsageError

STEPS = "500"  # transformers' default of eval_steps and save_steps


def imply(settings: dict[str, Value]) -> dict[str, Value]:
    """Return the settings of one source with what they say of others. **Pure.** Raises UsageError.

    One source, so that a flag wins over a file also where they say the same thing in different words.
    """
    result = dict(settings)
    for what in ("eval", "save"):
        if _is_set(settings, f"{what}_steps"):
            result.setdefault(f"{what}_strategy", "steps")
    if settings.get("optim") == "adamw_torch":  # the same updates
        result["optim"] = "adamw_torch_fused"
    return result | _warmup(settings) | wire.imply(settings)


def _is_set(settings: dict[str, Value], name: str) -> bool:
    return settings.get(name) not in (None, "null")


def _warmup(settings: dict[str, Value]) -> dict[str, Value]:
    """Return warmup_steps and warmup_ratio of a source that has one of them. **Pure.**

    transformers 5 takes a share as warmup_steps below 1. Steps win over a share unless they are 0, as in transformers
    4; alone, 0 means none.
    """
    has_ratio = _is_set(settings, "warmup_ratio")
    found: dict[str, Value] = {name: value for name, value in settings.items() if name == "warmup_ratio" and has_ratio}
    if not _is_set(settings, "warmup_steps"):
        return {**found, "warmup_steps": "0"} if has_ratio else {}
    steps = _number(settings["warmup_steps"])
    if steps is None or steps < 0 or steps >= 1:
        return found
    if has_ratio and steps > 0 and steps != _number(settings["warmup_ratio"]):
        raise UsageError(
            "--warmup_steps",
            f"{settings['warmup_steps']} and --warmup_ratio {settings['warmup_ratio']} are two shares of all steps",
            legal="one of them",
        )
    return {"warmup_ratio": settings["warmup_steps"], **found, "warmup_steps": "0"}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None  # the parser says what is wrong


def complete(settings: dict[str, str], note: Callable[[str], None]) -> dict[str, str]:
    """Return all settings with what follows where transformers has a default and one would wait for it in vain."""
    result = earlier.take_over(settings)
    every = {"eval": settings.get("logging_steps", STEPS), "save": STEPS}
    for what, steps in every.items():
        if settings.get(f"{what}_strategy") == "steps" and settings.get(f"{what}_steps", "null") == "null":
            result[f"{what}_steps"] = steps
            note(f"--{what}_strategy steps: every {steps} steps (--{what}_steps)")
    model = result.get("model_name_or_path", "")
    if settings.get("cache_dir", "null") != "null" and not Path(model).expanduser().exists():
        note("--cache_dir: of tokenised rows; models from the hub lie where HF_HOME says")
    asked = [name for name in ("do_eval", "do_predict") if settings.get(name) == "true"]
    if asked and "do_train" not in settings:
        note(f"--{asked[0]}: the command also trains; ringtune-predict evaluates and predicts without training")
    return result
