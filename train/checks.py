"""What of a configuration cannot work, found before anything is read or written.

``config`` is a `ringtune.train.config.TrainConfig`, whose module imports this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ringtune.train import (
    adapter_settings,
    csv_rule,
    decay,
    direction,
    earlier,
    flags,
    gap,
    interval,
    mask_settings,
    wire,
)
from ringtune.train.columns import split_names, split_once
from ringtune.train.contract import UsageError

ANSWER_COUNTS = ("n_best_size", "max_answer_length")
MOST_THREADS = 1024  # OpenMP dies of many more


def check(config: Any) -> None:
    """Raise UsageError for a value that cannot work, before anything is read or written."""
    flags.require_positive(config, ("max_seq_length", "learning_rate", "per_device_eval_batch_size", "adam_epsilon"))
    flags.require_counts(
        config,
        (
            "save_total_limit",
            "num_threads",
            "max_train_samples",
            "max_eval_samples",
            "early_stopping_patience",
            "compression_rank",
            *ANSWER_COUNTS,
        ),
    )
    _check_cadence(config)
    interval.steps(config.profile_steps, "--profile_steps")
    csv_rule.require_delimiter(config.csv_delimiter)
    decay.check_settings(config.lr_scheduler_type, config.lr_scheduler_kwargs or {}, config.learning_rate)
    _check_ranges(config)
    check_labels(config)
    mask_settings.check(config)
    _check_loss(config)
    check_names(config, ("slice_by", "metrics", "max_gap", "freeze"))
    direction.check(config)
    if gap.bounds(config.max_gap) and not config.slice_by:
        raise UsageError("--max_gap", "there are no slices to compare", legal="needs --slice_by")
    if config.max_steps <= 0 and config.num_train_epochs <= 0:
        raise UsageError("--num_train_epochs", f"{config.num_train_epochs} trains nothing", legal="above 0")
    if config.bf16 and config.fp16:
        raise UsageError("--bf16 --fp16", "both are set", legal="one of them")
    wire.check(config)
    adapter_settings.check(config)
    earlier.check(config)
    _check_source(config)
    if not config.do_train:
        raise UsageError(
            "--do_train", "false leaves nothing to do", legal="true", todo="ringtune-predict evaluates and predicts"
        )
    _check_evaluation(config)


def _check_evaluation(config: Any) -> None:
    for name in ("load_best_model_at_end", "early_stopping_patience"):
        if getattr(config, name) and not config.do_eval:
            raise UsageError(f"--{name}", "nothing is evaluated", legal="needs --do_eval true")
    if config.early_stopping_patience and config.eval_strategy == "no":
        raise UsageError(
            "--early_stopping_patience", "the one evaluation is at the end", legal="--eval_strategy epoch or steps"
        )


def _check_ranges(config: Any) -> None:
    fractions = ("warmup_ratio", "label_smoothing_factor", "dropout", "adam_beta1", "adam_beta2", "sgd_momentum")
    for name in fractions:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"--{name}", f"{value} is out of range", legal="0 <= value < 1")
    for name in (
        "weight_decay",
        "focal_gamma",
        "max_grad_norm",
        "reinit_layers",
        "warmup_steps",
        "seed",
        "early_stopping_threshold",
    ):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}", f"{getattr(config, name)} is negative", legal="a number from 0")
    for name, most in (("seed", (1 << 63) - 1), ("num_threads", MOST_THREADS)):
        if (getattr(config, name) or 0) > most:
            raise UsageError(f"--{name}", f"{getattr(config, name)} is too large", legal=f"at most {most}")
    if config.ema_decay is not None and not 0 < config.ema_decay < 1:
        raise UsageError("--ema_decay", f"{config.ema_decay} is out of range", legal="0 < value < 1")
    if (config.window_stride or 0) < 0:
        raise UsageError("--window_stride", f"{config.window_stride} is negative", legal="tokens from 0")
    if config.window_pooling != "mean" and config.window_stride is None:
        raise UsageError("--window_pooling", "rows are not read in windows", legal="needs --window_stride")
    if not 0 < config.layerwise_lr_decay <= 1:
        raise UsageError("--layerwise_lr_decay", f"{config.layerwise_lr_decay} is out of range", legal="0 < value <= 1")


def check_labels(config: Any) -> None:
    """Raise UsageError for what separates no labels, or is no threshold. config: of training, or of prediction."""
    if config.doc_stride is not None and config.doc_stride < 0:
        raise UsageError("--doc_stride", f"{config.doc_stride} is negative", legal="a number of tokens from 0")
    if config.null_score_diff_threshold is not None and not math.isfinite(config.null_score_diff_threshold):
        raise UsageError("--null_score_diff_threshold", "it is no finite number", legal="a difference of two scores")
    if config.label_separator == "":
        raise UsageError("--label_separator", "it is empty", legal="what stands between labels, such as ';'")
    if config.threshold is not None and not 0 < config.threshold < 1:
        raise UsageError("--threshold", f"{config.threshold} is out of range", legal="0 < value < 1")


def check_names(config: Any, names: Sequence[str]) -> None:
    """Raise UsageError for a list of names that is set and has none, or a column to slice by twice. config: of
    training, or of prediction."""
    for name in names:
        value = getattr(config, name)
        if value and not split_names(value):
            raise UsageError(
                f"--{name} {value}", "it names nothing", legal="names, joined by commas", todo="leave it out"
            )
    split_once(config.slice_by, "--slice_by")


def _check_loss(config: Any) -> None:
    if config.balanced_sampling and config.class_weights == "auto":
        raise UsageError(
            "--class_weights auto --balanced_sampling",
            "both are set: rare classes would be corrected for twice, and count more than frequent ones",
            legal="one of them, or weights of your own, such as 1,5",
            todo="leave one out",
        )
    if config.focal_gamma and config.label_smoothing_factor:
        raise UsageError(
            "--focal_gamma --label_smoothing_factor",
            "both are set: a smoothed loss is not that of the row's own class alone",
            legal="one of them",
        )


def _check_cadence(config: Any) -> None:
    for name in ("eval_steps", "save_steps", "logging_steps"):
        value = getattr(config, name)
        if value is not None and (value <= 0 or (value > 1 and value != int(value))):
            raise UsageError(
                f"--{name}", f"{value} is no number of steps", legal="from 1, or their part of all below 1"
            )


def _check_source(config: Any) -> None:
    sources = [name for name in ("task_name", "dataset_name", "train_file") if getattr(config, name)]
    if not sources:
        raise UsageError("data", "nothing to train on", legal="--train_file, --task_name or --dataset_name")
    if "train_file" in sources and len(sources) > 1 and not (sources == ["task_name", "train_file"]):
        raise UsageError("--dataset_name --train_file", "both are given", legal="one source of rows")
