"""What an adapter is to be: from the flags, a file or an adapter's folder; what cannot work is refused by name.

An adapter is a few parameters beside a model that is not trained itself. The library peft puts them into the model.
Imports nothing heavy until an adapter is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringtune.train import flags, json_types
from ringtune.train.contract import UsageError, nearest

#: peft's names of what models are for, by what their class's name has behind "For"; it has none for multiple choice.
TASK_TYPES: dict[str, str | None] = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    "MultipleChoice": None,
}
ALL_LINEAR = "all-linear"
DEFAULT_DROPOUT = 0.05
#: peft's types of adapters that do here what they should: tests/unit/test_adapter.py tries each.
TYPES = (
    "BOFT",
    "C3A",
    "DELORA",
    "FOURIERFT",
    "GRALORA",
    "HIRA",
    "HRA",
    "IA3",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "LORA",
    "MISS",
    "OFT",
    "RANDLORA",
    "SHIRA",
    "VBLORA",
    "VERA",
    "WAVEFT",
)
_LEGAL = ", ".join(filter(None, TASK_TYPES.values()))
_TOKENS = "it puts tokens of its own before each row, which a packed row has no place for"
_BETWEEN_STEPS = "it must be told of every step, and changes its parameters in between"
#: Why others are not in it, of those that users of classifiers know.
REFUSED = {
    **dict.fromkeys(("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "CPT"), _TOKENS),
    **dict.fromkeys(("ADALORA", "ADAMSS"), _BETWEEN_STEPS),
    "ADAPTION_PROMPT": "it is for language models",
    "XLORA": "it is made of several adapters",
    "POLY": "it is made of several adapters",
}
#: Settings of LORA that may differ from peft's defaults; the others change the model's own weights, read more than a
#: layer's input, or are for other models.
LORA_SETTINGS = (
    "r",
    "target_modules",
    "exclude_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "bias",
    "use_rslora",
    "modules_to_save",
    "init_lora_weights",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "lora_bias",
)
LORA_BEGINNINGS = (True, False, "gaussian", "orthogonal")
#: What says where an adapter comes from, not what it is.
ORIGIN = (
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "auto_mapping",
    "peft_version",
    "runtime_config",
)
#: The layers for families that peft has no default for: queries and values of attention, as it has for the others.
TARGETS = {
    "albert": ["query", "value"],
    "camembert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "modernbert": ["Wqkv"],
}
OWN_TARGETS = ("IA3", "LN_TUNING")  # types that are for other layers than these


def check(config: Any) -> None:
    """Raise UsageError for settings of an adapter that do not go together. **Pure.**"""
    flags.require_counts(config, ("lora_r",))
    flags.require_positive(config, ("lora_alpha",))
    if config.lora_dropout is not None and not 0 <= config.lora_dropout < 1:
        raise UsageError("--lora_dropout", f"{config.lora_dropout} is out of range", legal="0 <= value < 1")
    names = ("lora_alpha", "lora_dropout", "lora_target_modules")
    others = [name for name in names if getattr(config, name) is not None]
    if others and config.lora_r is None:
        raise UsageError(f"--{others[0]}", "it belongs to LoRA, which is off", legal="with --lora_r", todo="--lora_r 8")
    if config.lora_r is not None and config.peft_config is not None:
        raise UsageError("--lora_r --peft_config", "each describes an adapter", legal="one of them")
    if asked_by(config) and config.reinit_layers:
        raise UsageError(
            f"{asked_by(config)} --reinit_layers",
            "an adapter's folder does not hold the weights of layers that start from random ones",
            legal="one of them",
        )
    if asked_by(config) and config.resize_token_embeddings:
        raise UsageError(
            f"{asked_by(config)} --resize_token_embeddings",
            "embeddings of new tokens would be neither trained nor saved",
            legal="one of them",
            todo="train the model whole, or give it a tokenizer that it knows",
        )


def asked_by(config: Any) -> str:
    """Return the flag that asks for a new adapter, "" where none does. **Pure.**"""
    return "--lora_r" if config.lora_r is not None else f"--peft_config {config.peft_config}" * bool(config.peft_config)


def of_run(config: Any) -> dict[str, Any] | None:
    """Return the settings of the adapter that a run asks for, None if it asks for none. Raises UsageError."""
    if config.peft_config is not None:
        return of_file(Path(config.peft_config), f"--peft_config {config.peft_config}")
    if config.lora_r is None:
        return None
    targets = config.lora_target_modules
    names = [each.strip() for each in (targets or "").split(",") if each.strip()]
    alpha = 2 * config.lora_r if config.lora_alpha is None else config.lora_alpha
    return {
        "peft_type": "LORA",
        "r": config.lora_r,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": DEFAULT_DROPOUT if config.lora_dropout is None else config.lora_dropout,
        "target_modules": ALL_LINEAR if names == [ALL_LINEAR] else names or None,
    }


def of_file(path: Path, where: str) -> dict[str, Any]:
    """Return the settings in a JSON file. Raises UsageError for one that cannot be read, or holds none."""
    try:
        content = json.loads(path.expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            where,
            f"it cannot be read: {getattr(error, 'strerror', None) or error}",
            legal="a JSON file as peft's adapter_config.json",
            todo="check it",
        ) from None
    if not isinstance(content, dict) or "peft_type" not in content:
        raise UsageError(where, "it says of no adapter what it is", legal=f"peft_type: one of {', '.join(TYPES)}")
    return content


def require_usable(config: Any) -> None:
    """Raise UsageError for an adapter that a run asks for and that cannot work, before anything else is read."""
    settings = of_run(config)
    if settings is not None:
        build(settings, asked_by(config), model_of(settings) or "MultipleChoice")  # which has no task_type to compare


def model_by_class(name: str) -> str:
    """Return what a model is for by its class's name, of `TASK_TYPES`; "" for something else. **Pure.**"""
    return next((each for each in TASK_TYPES if f"For{each}" in name), "")


def model_of(settings: Mapping[str, Any]) -> str | None:
    """Return what an adapter's model is for, of `TASK_TYPES`; None if its settings do not say it. **Pure.**"""
    models = {task_type: model for model, task_type in TASK_TYPES.items() if task_type}
    return models.get(str(settings.get("task_type")))


def require_peft(where: str) -> None:
    """Raise UsageError where the library peft is not installed. where: what needs it."""
    if importlib.util.find_spec("peft") is None:
        raise UsageError(where, "it needs the library peft", legal="peft 0.21", todo="pip install 'peft>=0.21,<0.22'")


def build(settings: Mapping[str, Any], where: str, model: str) -> Any:
    """Return peft's configuration of an adapter. Raises UsageError for one that cannot work here.

    model: what it is for, of `TASK_TYPES`; "" for something else.
    """
    if model not in TASK_TYPES:
        raise UsageError(
            where,
            f"its task_type is {settings.get('task_type')}, and its base is not known to take adapters",
            legal=f"task_type {_LEGAL} in its adapter_config.json",
        )
    require_peft(where)
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = str(settings["peft_type"]).upper()
    if kind not in TYPES:
        reason = REFUSED.get(kind, "it was not tried here")
        raise UsageError(where, f"adapters of type {kind[:40]} are not taken: {reason}", legal=", ".join(TYPES))
    task_type = TASK_TYPES[model]
    if (settings.get("task_type") or task_type) != task_type:
        legal = f"task_type {task_type or _LEGAL}, or none, as the rows are"
        raise UsageError(where, f"it is for {settings['task_type']}", legal=legal)
    make = PEFT_TYPE_TO_CONFIG_MAPPING[kind]  # type: ignore[index]
    _refuse_unknown(settings, make, where)
    _refuse_settings(kind, settings, make, where)
    _refuse_types(settings, make, where)
    own = {name: value for name, value in settings.items() if name not in (*ORIGIN, "peft_type")}
    try:
        return make(task_type=task_type, **own)
    except (TypeError, ValueError) as error:
        raise unusable(where, error) from None


def unusable(where: str, error: Exception) -> UsageError:
    """Return the error of an adapter that peft cannot make. **Pure.**"""
    return UsageError(
        where,
        f"peft makes no adapter of it: {' '.join(str(error).split())[:300]}",
        legal="settings that fit the model",
        todo="name other layers with --lora_target_modules, or in the file",
    )


def _refuse_unknown(settings: Mapping[str, Any], make: type, where: str) -> None:
    """Raise UsageError for a setting that peft does not know: it would be passed over."""
    known = [each.name for each in dataclasses.fields(make)]
    for name in settings:
        if name not in known and name not in ORIGIN:
            near = nearest(name, known)
            raise UsageError(where, f"{make.__name__} of peft has no {name[:40]!r}", todo=near or "leave it out")


def _refuse_settings(kind: str, settings: Mapping[str, Any], make: type, where: str) -> None:
    """Raise UsageError for a setting of LORA by which it is more than a few parameters beside the model's."""
    if kind != "LORA":
        return
    usual = dataclasses.asdict(make())  # type: ignore[call-overload]
    for name, value in settings.items():
        is_usual = name in (*LORA_SETTINGS, *ORIGIN) or value == usual.get(name) or not value
        if not is_usual:
            raise UsageError(where, f"{name} was not tried here", legal=f"only {', '.join(LORA_SETTINGS)}")
    beginning = settings.get("init_lora_weights", True)
    if beginning not in LORA_BEGINNINGS:
        raise UsageError(
            where,
            f"init_lora_weights {beginning} changes the model's own weights, which an adapter's folder does not hold",
            legal=", ".join(str(each).lower() for each in LORA_BEGINNINGS),
        )


def _refuse_types(settings: Mapping[str, Any], make: type, where: str) -> None:
    """Raise UsageError for a value of another type than peft's: it would be taken for another one, or fail anywhere."""
    kinds = typing.get_type_hints(make)
    for name, value in settings.items():
        if name in ORIGIN or name == "peft_type" or json_types.fits(value, kinds[name]):
            continue
        raise UsageError(where, f"{name} is {json.dumps(value)[:80]}", legal=json_types.described(kinds[name]))
