"""From the settings of a prediction to a model that is ready, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from ringtune.train import adapter, final, model, model_tokens
from ringtune.train import task as tasks
from ringtune.train.checkpoint import SMALL_FILE
from ringtune.train.comm import Comm
from ringtune.train.contract import UsageError
from ringtune.train.device import leave_out_cudnn_attention
from ringtune.train.digest import state_digest
from ringtune.train.precision import autocast_format
from ringtune.train.predict import confidence
from ringtune.train.predict import config as settings
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.predictor import Predictor
from ringtune.train.step import Precision
from ringtune.train.task.mask_filling import for_prediction
from ringtune.train.tokenizer import open_tokenizer
from ringtune.train.tokens import tokenizer_digest

_SOFTWARE = ("ringtune", "torch", "transformers", "tokenizers")


def resolve(config: PredictConfig) -> PredictConfig:
    """Return the settings with what was left open filled in from the model's folder. Raises UsageError."""
    # The weights are read, and verified, by every rank when it loads them.
    final.require_whole(config.model_name_or_path, read_up_to=SMALL_FILE)
    found = tasks.read(Path(config.model_name_or_path).expanduser())
    return settings.resolve(config, settings.settings_of_run(config.model_name_or_path), found[1] if found else None)


def load_predictor(
    config: PredictConfig, device: torch.device, report: Callable[[str], None] = lambda words: None
) -> Predictor:
    """Return the model of resolved settings, on the device. Raises UsageError for one that cannot predict.

    report: takes what is changed for the model, a line each.
    """
    assert config.batch_tokens is not None  # resolved
    leave_out_cudnn_attention(device)
    name = config.model_name_or_path
    network, task, _ = model.load_trained(name, allow_pickle=config.allow_pickle)
    fitted = open_tokenizer(name, report)
    model_tokens.require_known_tokens(fitted.num_known_tokens, len(fitted.tokenizer))
    confidence.require_probabilities(task, config.min_confidence, config.top_k)
    network.config.pad_token_id = fitted.tokenizer.pad_token_id  # type: ignore[union-attr]
    return Predictor(
        for_prediction(tasks.settle(task, config), fitted.tokenizer, config.top_k),
        network.to(device),
        fitted.tokenizer,
        fitted.limit.settle(config.max_seq_length, report),
        config.batch_tokens,
        Precision(device, autocast_format(config)),
        top_k=config.top_k,
    )


def require_same_model(predictor: Predictor, comm: Comm) -> dict[str, str]:
    """Return the digests of what predicts. **Collective.** Raises UsageError, on every rank, if models differ."""
    mine = {
        "model": state_digest(adapter.used(predictor.model.state_dict())) + repr(predictor.task.to_json()),
        "tokenizer": tokenizer_digest(predictor.tokenizer),
        "software": " ".join(f"{name} {metadata.version(name)}" for name in _SOFTWARE),
    }
    digests = comm.gather_values(mine, "predict/digests")
    odd = [rank for rank, each in enumerate(digests) if each != digests[0]]
    if odd:
        raise UsageError(
            "model",
            f"rank(s) {odd} read another model than rank 0",
            legal="the same files on every host",
            todo="check --model_name_or_path on each host",
        )
    return mine


def describe(config: PredictConfig, predictor: Predictor) -> str:
    """Return the model and how it computes, in one line. **Pure.**"""
    precision = "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32"
    return (
        f"model {config.model_name_or_path}: {predictor.task.describe()}; {precision}, "
        f"rows of {predictor.max_seq_length} tokens at most, batches of {config.batch_tokens}"
    )
