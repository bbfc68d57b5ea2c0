"""Settings that have no effect beside others are reported, but for those that are as by default."""

from __future__ import annotations

import re

import pytest
from ringtune.train import unused_settings
from ringtune.train.config import TrainConfig
from ringtune.train.opening import open_run
from ringtune.train.task.classification import Classification
from ringtune.train.task.regression import Regression

CLASSES, NUMBERS = Classification(None, classes=("a", "b")), Regression(None)


@pytest.mark.parametrize(
    ("settings", "task", "words"),
    [
        ({"optim": "adafactor", "adam_beta1": 0.8}, CLASSES, ["--adam_beta1 0.8 has no effect: --optim adafactor"]),
        ({"optim": "sgd", "adam_beta2": 0.9, "adam_epsilon": 1e-6}, CLASSES, ["--adam_beta2 0.9", "--adam_epsilon"]),
        ({"sgd_momentum": 0.5}, CLASSES, ["--sgd_momentum 0.5 has no effect: --optim adamw_torch_fused"]),
        ({"compression": "bf16", "compression_rank": 8}, CLASSES, ["--compression_rank 8 has no effect: .* of bf16"]),
        ({"early_stopping_threshold": 0.1}, CLASSES, ["--early_stopping_threshold 0.1 .*early_stopping_patience"]),
        ({"label_smoothing_factor": 0.1}, NUMBERS, ["--label_smoothing_factor 0.1 has no effect: .* numbers"]),
        # with an effect, and as by default
        ({"optim": "lamb", "adam_beta1": 0.8, "label_smoothing_factor": 0.1}, CLASSES, []),
        ({"optim": "sgd", "sgd_momentum": 0.5, "compression": "acp", "compression_rank": 8}, CLASSES, []),
        ({"early_stopping_patience": 2, "early_stopping_threshold": 0.1}, CLASSES, []),
        ({"optim": "adafactor", "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}, NUMBERS, []),
    ],
)
def test_a_setting_without_effect_is_a_line(settings, task, words):
    lines = unused_settings.describe(TrainConfig("m", "o", **settings), task)
    assert len(lines) == len(words)
    for line, each in zip(lines, words, strict=True):
        assert re.search(each, line)


@pytest.mark.parametrize("keep", [True, False])
def test_a_new_run_has_no_schedule_to_keep(tmp_path, keep):
    lines = []
    open_run(TrainConfig("m", str(tmp_path), keep_schedule=keep), 1, None, lines.append, dry_run=True)
    assert ["--keep_schedule true has no effect" in line for line in lines] == [True] * keep
