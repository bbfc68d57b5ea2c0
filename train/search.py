"""What a user asks of a search: its space, how many trials, and when bad ones are ended. Standard library only."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringtune.train import space
from ringtune.train.contract import UsageError

OPTUNA = "optuna"
WHOLE_TRIALS = 3
_OFF = "off"
#: The axis of a sweep whose runs are the trials of a search.
TRIAL = "trial"


@dataclass(frozen=True)
class Search:
    """A search for good settings."""

    words: tuple[str, ...]  # of --sweep, as written
    space: space.Space
    num_trials: int
    pruning: int | None  # trials that train to their end before any is pruned; None: none is

    @property
    def axes(self) -> dict[str, list[str]]:
        """The runs of the search as those of a sweep: one for each trial."""
        return {TRIAL: [str(number) for number in range(self.num_trials)]}

    @property
    def pruning_word(self) -> str:
        """The value of --pruning."""
        return _OFF if self.pruning is None else str(self.pruning)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of a search, beside --sweep."""
    parser.add_argument(
        "--search", choices=(OPTUNA,), help="draw trials from ranges and lists of --sweep instead of trying all values"
    )
    parser.add_argument("--trials", type=int, metavar="N", help="trials of the search")
    parser.add_argument(
        "--pruning",
        metavar="N",
        help="end a trial whose best score so far is worse than the median of the others at the same evaluation, once "
        f"N have trained to their end ({WHOLE_TRIALS}); off: none",
    )


def of_options(options: Any, types: Mapping[str, object]) -> Search | None:
    """Return the search that options of `add_to` and ``--sweep`` mean, None if they mean a sweep. **Pure.**

    options: with the names of `add_to`, and ``sweep``. types: of the settings, by name. Raises UsageError for what
    cannot be searched.
    """
    if options.search is None:
        for name in ("trials", "pruning"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name}", "there is no search", legal="with --search optuna")
        return None
    found = space.parse(options.sweep, types)
    if options.trials is None or options.trials < 1:
        wrong = "it is missing" if options.trials is None else f"{options.trials} is too few"
        raise UsageError("--trials", wrong, legal="a number from 1, such as 20")
    if space.num_combinations(found) <= options.trials:
        raise UsageError(
            "--trials",
            f"{options.trials} trials of a space of {space.num_combinations(found):g} combinations",
            legal="fewer trials than combinations",
            todo="a sweep without --search trains each of them",
        )
    return Search(tuple(options.sweep), found, options.trials, _pruning(options.pruning))


def _pruning(text: str | None) -> int | None:
    if text is None or text == _OFF:
        return None if text else WHOLE_TRIALS
    if not text.isdecimal() or int(text) < 1:
        raise UsageError("--pruning", f"{text!r} is no number of trials", legal="a number from 1, or off")
    return int(text)


def check(
    search: Search, flags: Sequence[str], parse: Callable[..., tuple[Any, bool]], note: Callable[[str], None]
) -> Any:
    """Return the configuration of the flags without those that are searched over.

    parse: of `ringtune.train.config`. note: takes its notes. Raises UsageError for flags of any trial that cannot work.
    """
    config, _ = parse(list(flags), note)
    for settings in space.to_check(search.space):
        parse([*flags, *(f"--{name}={value}" for name, value in settings.items())], lambda line: None)
    if not config.do_eval:
        raise UsageError("--search", "nothing is evaluated", legal="needs --do_eval true")
    if search.pruning is not None and config.eval_strategy == "no":
        raise UsageError(
            "--pruning",
            "trials are evaluated only at their end: none can be ended early",
            legal="--eval_strategy epoch or steps",
            todo="set it, or --pruning off",
        )
    return config


def require_optuna() -> None:
    """Raise UsageError if optuna is not installed here."""
    if importlib.util.find_spec(OPTUNA) is None:
        raise UsageError(
            "--search optuna", "optuna is not installed", legal="optuna 5", todo="pip install 'ringtune[search]'"
        )
