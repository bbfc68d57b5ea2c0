"""What a model's folder or the hub has under a name, read or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringtune.train import weights
from ringtune.train.contract import UsageError


@contextmanager
def error_in_one_line(name: str) -> Iterator[None]:
    """Turn what transformers raises for a model that cannot be read into a UsageError."""
    try:
        yield
    except Exception as error:  # many kinds: of missing files, of their parsers, of settings that make no model
        raise unusable(name, "model", error) from None


def unusable(name: str, what: str, error: Exception) -> UsageError:
    """Return the error of a model or tokenizer that cannot be read."""
    where = f"--model_name_or_path {name}"
    if "trust_remote_code" in str(error):
        return UsageError(
            where,
            "it brings code of its own (auto_map in config.json), which is never run",
            legal="an architecture that transformers has",
        )
    if Path(name).exists():
        return UsageError(
            where,
            f"no {what} could be read from it: {weights.reason(error)}",
            legal="a folder written by save_pretrained() of a sequence model, with its tokenizer",
        )
    if f"named {weights.SAFE[0]}" in str(error):
        return UsageError(
            where,
            f"the hub has no {weights.SAFE[0]} of it",
            legal="weights in that format",
            todo=f"--allow_pickle true reads its {weights.PICKLES[0]} as tensors alone",
        )
    return UsageError(
        where,
        f"no such folder, and the hub gave no {what}",
        legal="a folder or a hub name",
        todo="check the name, or download the model where there is a network and name its folder",
    )


def saved_config(name: str) -> Mapping[str, Any]:
    """Return a model's configuration as it was saved. Raises UsageError for weights that are quantised."""
    import transformers

    with error_in_one_line(name):
        saved, _ = transformers.PretrainedConfig.get_config_dict(name)
    _refuse_quantised(name, saved.get("quantization_config"))
    return saved


def read_config(name: str, **settings: Any) -> Any:
    """Return a model's configuration with some settings changed. Raises UsageError."""
    import transformers

    with error_in_one_line(name):
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **settings)
    _refuse_quantised(name, getattr(config, "quantization_config", None))
    return config


def set_dropout(model_config: Any, rate: float) -> None:
    """Set every dropout a BERT-family configuration knows: BERT's names, DistilBERT's and the classifier's."""
    for name in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "dropout",
        "attention_dropout",
        "seq_classif_dropout",
        "qa_dropout",
        "embedding_dropout",
        "mlp_dropout",
    ):
        if hasattr(model_config, name):
            setattr(model_config, name, rate)


def _refuse_quantised(name: str, settings: Mapping[str, Any] | None) -> None:
    if settings:
        method = dict(settings).get("quant_method")
        raise UsageError(
            f"--model_name_or_path {name}",
            f"its weights are quantised ({method or 'quantization_config in config.json'}) and cannot be trained",
            legal="weights in float32, bfloat16 or float16",
            todo="take the model they were made from",
        )
