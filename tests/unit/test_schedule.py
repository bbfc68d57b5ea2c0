"""The learning rate of a step is transformers' own, whatever the schedule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ringtune.train import config, decay, schedule
from ringtune.train.contract import UsageError
from ringtune.train.huggingface import TRAIN
from transformers import SchedulerType, get_scheduler

#: What --lr_scheduler_kwargs holds in the comparison, for each schedule that takes something.
SETTINGS = {
    "cosine": [{"num_cycles": 1.5}],
    "cosine_with_restarts": [{"num_cycles": 3}],
    "polynomial": [{"lr_end": 1e-6, "power": 2.0}],
    "inverse_sqrt": [{"timescale": 50}],
    "cosine_with_min_lr": [{"min_lr": 1e-5}, {"min_lr_rate": 0.1, "num_cycles": 2}],
    "cosine_warmup_with_min_lr": [{"min_lr": 1e-5}, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}],
    "one_cycle": [{"pct_start": 0.3}, {"div_factor": 10.0, "final_div_factor": 100.0}],
    "warmup_stable_decay": [
        {"num_decay_steps": 5, "warmup_type": kind, "decay_type": kind, "min_lr_ratio": 0.1}
        for kind in ("linear", "cosine", "1-sqrt")
    ]
    + [{"num_decay_steps": 5, "num_stable_steps": 2, "num_cycles": 1.5}],
}
NEEDS = ("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay")
CASES = [
    (name, kwargs)
    for name in decay.SCHEDULES
    if name != "one_cycle"
    for kwargs in [*([] if name in NEEDS else [None]), *SETTINGS.get(name, [])]
]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@settings(max_examples=25)
@given(total=st.integers(1, 60), part=st.floats(0, 0.9))
def test_the_learning_rate_of_every_step_is_that_of_transformers(name, kwargs, total, part):
    ours = config.TrainConfig("m", lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, warmup_ratio=part)
    warmup = schedule.num_warmup_steps(total, part, 0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=ours.learning_rate)
    theirs = get_scheduler(name, optimizer, warmup, total, kwargs)
    if warmup < total:  # at the end of a warm-up that is the whole run, transformers divides by zero
        for step in range(total):
            assert schedule.learning_rate(ours, step, total) == pytest.approx(theirs.get_last_lr()[0], abs=1e-18)
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("kwargs", [None, *SETTINGS["one_cycle"]])
@settings(max_examples=25)
@given(total=st.integers(3, 60), part=st.floats(0.1, 0.9))
def test_one_cycle_is_that_of_torch(kwargs, total, part):
    """Whose own peak comes after pct_start of the steps; ours, where it is not set, after the warm-up."""
    ours = config.TrainConfig("m", lr_scheduler_type="one_cycle", lr_scheduler_kwargs=kwargs, warmup_ratio=part)
    share = (kwargs or {}).get("pct_start", schedule.num_warmup_steps(total, part, 0) / total)
    if not 1 < share * total < total:
        return  # with no step for the rise or the fall, torch divides by zero
    others = {name: value for name, value in (kwargs or {}).items() if name != "pct_start"}
    others |= {"total_steps": total, "pct_start": share, "cycle_momentum": False}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, ours.learning_rate, **others)
    for step in range(total):
        assert schedule.learning_rate(ours, step, total) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()


def test_every_schedule_of_transformers_is_taken_or_refused_with_a_reason():
    ours = set(decay.SCHEDULES) - {"one_cycle"}
    assert {each.value for each in SchedulerType} == {*ours, *TRAIN["lr_scheduler_type"].refused}
    kind = str(config.FIELDS["lr_scheduler_type"].type)
    assert {each.strip() for each in kind[len("Literal[") : -1].split(",")} == {repr(name) for name in decay.SCHEDULES}


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("cosine", {"num_cycle": 3}, "cosine takes no num_cycle; num_cycles; nearest is num_cycles"),
        ("linear", {"power": 3}, "linear takes no power; none"),
        ("cosine", {"num_cycles": "many"}, "num_cycles is 'many'; a number from 0"),
        ("cosine", {"num_cycles": float("nan")}, "num_cycles is nan"),
        ("cosine_with_min_lr", {}, "needs min_lr or min_lr_rate"),
        ("cosine_with_min_lr", {"min_lr": 1e-6, "min_lr_rate": 0.1}, "min_lr or min_lr_rate, not both"),
        ("warmup_stable_decay", {}, "needs num_decay_steps"),
        ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "sqrt"}, "linear, cosine, 1-sqrt"),
        ("polynomial", {"lr_end": 1.0}, "lr_end is not below --learning_rate"),
        ("inverse_sqrt", {"timescale": 0}, "timescale is 0"),
    ],
)
def test_settings_that_a_schedule_does_not_take_are_refused(name, kwargs, words):
    with pytest.raises(UsageError) as caught:
        decay.check_settings(name, kwargs, peak=1e-4)
    assert words in str(caught.value)
