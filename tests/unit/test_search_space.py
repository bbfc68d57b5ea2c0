"""The space of a search, as a user writes it, and the options beside it."""

from __future__ import annotations

import argparse

import pytest
from ringtune.train import config, search, space
from ringtune.train.config import FIELDS
from ringtune.train.contract import UsageError

TYPES = {name: each.type for name, each in FIELDS.items()}
WORDS = ("learning_rate=1e-5..1e-3:log", "warmup_ratio=0.0..0.2", "reinit_layers=0..4", "optim=adamw_torch,lamb")
SPACE = space.parse(WORDS, TYPES)


def options(**changes) -> argparse.Namespace:
    return argparse.Namespace(**{"search": "optuna", "trials": 4, "pruning": None, "sweep": [*WORDS], **changes})


def test_a_space_has_fractions_whole_numbers_and_lists():
    assert SPACE["learning_rate"] == space.Range(1e-5, 1e-3, is_log=True, is_whole=False)
    assert SPACE["warmup_ratio"] == space.Range(0.0, 0.2, is_log=False, is_whole=False)
    assert SPACE["reinit_layers"] == space.Range(0, 4, is_log=False, is_whole=True)
    assert SPACE["optim"] == space.Choice(("adamw_torch", "lamb"))
    assert list(space.to_check(SPACE))[:2] == [
        {"learning_rate": "1e-05", "warmup_ratio": "0.0", "reinit_layers": "0", "optim": "adamw_torch"},
        {"learning_rate": "0.001", "warmup_ratio": "0.0", "reinit_layers": "0", "optim": "adamw_torch"},
    ]
    assert len(list(space.to_check(SPACE))) == 5
    assert space.parse(["train-file=../a.csv,../b.csv"], TYPES)["train_file"].values == ("../a.csv", "../b.csv")


def test_a_drawn_fraction_is_written_with_four_digits_and_stays_between_the_ends():
    narrow = space.Range(0.123449, 0.123461, is_log=False, is_whole=False)
    written = [narrow.written(each) for each in (0.123449, 0.12345678, 0.123461)]
    assert written == ["0.123449", "0.123461", "0.123461"]
    assert SPACE["learning_rate"].written(1.23456e-4) == "0.0001235"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to search over"),
        (["seed=1..5"], "seed cannot be searched over: it is what a search draws by"),
        (["metric_for_best_model=f1,loss"], "cannot be searched over"),
        (["mlm_probability=0.05..0.4"], "cannot be searched over"),
        (["regression=true,false"], "cannot be searched over"),
        (["output_dir=a,b"], "output_dir cannot be swept over"),
        (
            ["weight_decay=0..1"],
            "whole numbers or fractions?; weight_decay=0.0..1.0 for fractions, weight_decay=0,1",
        ),
        (["learning_rate=1e-3..1e-5"], "holds no numbers; LOW..HIGH"),
        (["learning_rate=0.0..1e-5:log"], "0.0 has no logarithm"),
        (["learning_rate=1e-5..1e-3:lg"], "'lg' is no scale; log"),
        (["optim=lamb"], "is one value, not a space"),
        (["optim=lamb,lamb"], "an empty or a repeated value"),
        (["optim"], "'optim' is not understood; learning_rate=1e-5..1e-3:log"),
    ],
)
def test_what_is_no_space_is_refused(words, message):
    with pytest.raises(UsageError) as error:
        space.parse(words, TYPES)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": None}, "--trials: it is missing"),
        ({"trials": 0}, "--trials: 0 is too few"),
        ({"search": None}, "--trials: there is no search; with --search optuna"),
        ({"pruning": "never"}, "--pruning: 'never' is no number of trials; a number from 1, or off"),
        ({"sweep": ["reinit_layers=0..3"]}, "4 trials of a space of 4 combinations"),
    ],
)
def test_what_is_no_search_is_refused(changes, message):
    with pytest.raises(UsageError) as error:
        search.of_options(options(**changes), TYPES)
    assert message in str(error.value)


def test_flags_of_every_end_and_value_are_checked_before_the_first_trial():
    flags = ["--model_name_or_path=m", "--train_file=x"]
    found = search.of_options(options(), TYPES)
    assert search.check(found, flags, config.parse, print).seed == 42
    with pytest.raises(UsageError, match="warmup_ratio"):
        search.check(search.of_options(options(sweep=["warmup_ratio=0.0..1.5"]), TYPES), flags, config.parse, print)
    with pytest.raises(UsageError, match="nothing is evaluated"):
        search.check(found, [*flags, "--do_eval=false"], config.parse, print)
    with pytest.raises(UsageError, match="only at their end"):
        search.check(found, [*flags, "--eval_strategy=no"], config.parse, print)
    search.check(search.of_options(options(pruning="off"), TYPES), [*flags, "--eval_strategy=no"], config.parse, print)
