"""What must be the same among the trials of a search: else their scores could not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringtune.train import direction, search
from ringtune.train.config import FIELDS
from ringtune.train.flags import MAY_CHANGE

#: Settings that a run that goes on may change, and trials that are compared may not.
SETTINGS = (
    "train_file",
    "pseudo_file",
    "validation_file",
    "num_train_epochs",
    "max_steps",
    "eval_strategy",
    "eval_steps",
    "load_best_model_at_end",
    "early_stopping_patience",
    "early_stopping_threshold",
)


def facts_of(found: search.Search, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same whenever the study of a search is opened: else its scores could not be compared.
    **Pure.** settings: of the training, without those of the space."""
    fixed = [name for name, each in FIELDS.items() if MAY_CHANGE not in each.metadata or name in SETTINGS]
    kept = {name: settings[name] for name in fixed if name in settings and name not in found.space}
    return {
        **kept,
        **_implied(found, settings),
        "space": list(found.words),
        "seed": settings["seed"],
        "pruning": found.pruning,
    }


def _implied(found: search.Search, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of settings that may otherwise change decides here: the size of a global batch that is not set
    itself, and the user's own function that trials are compared by. **Pure.**"""
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    result: dict[str, Any] = {}
    if settings.get("global_batch_size") is None and "global_batch_size" not in found.space:
        result = {name: settings.get(name) for name in sizes if name not in found.space}
        if settings.get(sizes[0]) is None and sizes[0] not in found.space:  # then its own default is the size
            result = {sizes[0]: None}
    decides = direction.deciding_function(settings.get("metrics"), settings.get("metric_for_best_model"))
    if decides is None:
        return result
    given = settings.get(direction.NAME)
    # Before it had to be said, nothing was set for the direction that was meant: an older study has that.
    said = None if given == direction.greater_is_better(None, decides.rpartition(":")[2]) else given
    return {**result, "metrics": [decides], direction.NAME: said}


def are_facts(kept: Any) -> bool:
    """Return whether what a study keeps is what `facts_of` gave. **Pure.**"""
    if not isinstance(kept, dict) or not {"space", "seed", "pruning"} <= set(kept):
        return False
    words, seed, pruning = (kept[name] for name in ("space", "seed", "pruning"))
    are_words = isinstance(words, list) and bool(words) and all(isinstance(each, str) for each in words)
    return are_words and isinstance(seed, int) and isinstance(pruning, int | None)
