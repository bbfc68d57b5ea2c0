"""The study of a search: optuna's record of its trials, in a file that its jobs share. Nothing else imports optuna.

The file is that of optuna's JournalStorage, whose documentation has it made for file systems such as NFS: each change
is one line, appended under a lock that is a file created with O_EXCL (JournalFileOpenLock, for NFS from version 3 on;
https://optuna.readthedocs.io/en/stable/reference/generated/optuna.storages.journal.JournalFileBackend.html). A lock
that a killed process left is broken after 30 seconds.

Every trial enters the file as a whole, by one line, and its number in the search is that of its run: whoever asks for
trial 3 again gets the same one. What it is drawn from is the seed, that number and the trials that are known by then,
and nothing else, so a search whose trials run one after the other has the same trials wherever it was stopped. What a
trial brought is read from its run directory, by whoever opens the study next: no result is lost with a process.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringtune.train import compared, disk, earlier, search, space, sweep, trial
from ringtune.train.contract import CONFIG_FILE, SEARCH_DIR, UsageError

if TYPE_CHECKING:
    from optuna.storages.journal import JournalFileOpenLock
    from optuna.trial import FrozenTrial

JOURNAL_FILE = "journal.log"
NAME = "search"
_FACTS = "facts"  # of the study: what must be the same whenever it is opened
_DRAWS = 20  # for a trial that there is not yet


class Study:
    """The trials of the search in a folder of run directories."""

    def __init__(self, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Open the study, or with ``facts`` start it. facts: of `compared.facts_of`.

        Raises UsageError if there is none, if it is one of other facts, or if optuna is missing.
        """
        search.require_optuna()
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # not a line for each study and trial
        self.folder, self.where = folder, str(folder / SEARCH_DIR)
        self.path = path = (folder / SEARCH_DIR / JOURNAL_FILE).absolute()
        if facts is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise UsageError(self.where, "there is no study of a search", legal="the folder of a search")
        lock = JournalFileOpenLock(str(path))
        _cut_torn_line(path, lock)
        try:
            self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))
            names = [each.study_name for each in self.storage.get_all_studies()]
            start = optuna.load_study if NAME in names else partial(optuna.create_study, load_if_exists=True)
            self.study = start(study_name=NAME, storage=self.storage)
        except OSError:
            raise
        except Exception as error:  # of many kinds, AssertionError among them: optuna takes its lines for its own
            raise self._damaged(f"{type(error).__name__} {error}") from None
        self.facts = self._settle_facts(facts)

    def _damaged(self, why: str) -> UsageError:
        """Return the error of a study that is not as it was written."""
        return UsageError(
            str(self.path),
            f"it cannot be read: {' '.join(why.split())[:200]}",
            legal="as optuna wrote it",
            todo="put it back, take the damaged line out of it, or choose another folder",
        )

    def _settle_facts(self, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
        kept: Any = self.study.user_attrs.get(_FACTS)
        if kept is None and facts is not None:
            kept = dict(facts)
            self.study.set_user_attr(_FACTS, kept)
        if kept is None:
            raise UsageError(self.where, "its study has no settings", legal="the folder of a search")
        if not compared.are_facts(kept):
            raise self._damaged(f"the settings of the search are {json.dumps(kept)}")
        newer = {name: value for name, value in (facts or {}).items() if name not in kept}
        before = {**self._trained_with(newer), **kept}
        for name, value in (facts or {}).items():
            if name in before and before[name] != value:
                raise UsageError(
                    f"--output_dir {self.folder}",
                    f"it holds a search whose {name} is {_shown(before[name])}, not {_shown(value)}",
                    legal="the same search; --trials may change",
                    todo=f"set {name} back, or choose another folder",
                )
        if newer:  # of a ringtune that keeps more than the one that the study is of: they hold from now on
            kept = {**kept, **newer}
            self.study.set_user_attr(_FACTS, kept)
        found: Mapping[str, Any] = kept
        return found

    def _trained_with(self, names: Collection[str]) -> dict[str, Any]:
        """Return those settings of the first trial that has begun which its study did not keep. Raises UsageError."""
        wanted = [name for name in names if name in compared.SETTINGS]
        runs = (self.run_of(number) for number, _ in self._trials()) if wanted else iter(())
        first = next((run for run in runs if (run / CONFIG_FILE).is_file()), None)
        settings = {} if first is None else earlier.settings_of(str(first), str(first))
        return {name: settings[name] for name in wanted if name in settings}

    def take(self, number: int) -> dict[str, str]:
        """Return the settings of a trial, which is drawn when it is first asked for, and write them into its run
        directory."""
        self.settle()
        found = self._find(number)
        if found is None:
            self.study.add_trial(draw(self.study.get_trials(deepcopy=False), self._space(), self.facts["seed"], number))
            found = self._find(number)  # not the one just added, if another process was faster
        assert found is not None
        space_now = self._space()
        if set(found.params) != set(space_now):
            raise self._damaged(f"trial {number} has {', '.join(found.params) or 'no settings'}")
        settings = {name: each.written(found.params[name]) for name, each in space_now.items()}
        trial.write(self.run_of(number), number, settings)
        return settings

    def settle(self) -> None:
        """Tell optuna what the runs brought that have finished since."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        for number, each in self._trials():
            outcome = None if each.state.is_finished() else trial.outcome(self.run_of(number))
            if outcome is None:
                continue
            with contextlib.suppress(UpdateFinishedTrialError):  # another process told it meanwhile
                if outcome.pruned:
                    self.study.tell(each.number, state=TrialState.PRUNED, skip_if_finished=True)
                else:
                    self.study.tell(each.number, outcome.cost, skip_if_finished=True)

    def has_ended(self, number: int) -> bool:
        """Return whether optuna knows what a trial brought. Raises UsageError for a trial that it does not know."""
        found = self._find(number)
        if found is None:
            raise UsageError(
                self.where, f"its study has no trial {number}", legal="the study that the run was drawn by"
            )
        return bool(found.state.is_finished())

    def is_bad(self, number: int, evaluation: int, cost: float) -> bool:
        """Note the cost of a trial at one of its evaluations, and return whether it should be pruned.

        evaluation: counted from 1, so that trials with other batch sizes can be compared. Noted again, as after a kill,
        it replaces what was noted.
        """
        from optuna.pruners import MedianPruner

        found = self._find(number)
        assert found is not None
        if found.state.is_finished():  # a run that goes on for longer than its search wanted
            return False
        study_id = self.storage.get_study_id_from_name(NAME)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, found.number)
        self.storage.set_trial_intermediate_value(trial_id, evaluation, cost)
        if self.facts["pruning"] is None:
            return False
        pruner = MedianPruner(n_startup_trials=self.facts["pruning"])
        # Not by a later evaluation, which a killed run had noted and makes again.
        seen = copy.deepcopy(self.storage.get_trial(trial_id))
        seen.intermediate_values = {
            each: value for each, value in seen.intermediate_values.items() if each <= evaluation
        }
        return bool(pruner.prune(self.study, seen))

    def _space(self) -> space.Space:
        return space.parse(self.facts["space"], {})

    def run_of(self, number: int) -> Path:
        """Return the run directory of a trial."""
        return self.folder / sweep.folder_name({search.TRIAL: str(number)})

    def _trials(self) -> Iterator[tuple[int, FrozenTrial]]:
        """Give each trial with its number in the search, the first of those with one number."""
        seen: set[int] = set()
        for each in self.study.get_trials(deepcopy=False):
            number = each.user_attrs.get(search.TRIAL)
            if isinstance(number, int) and number not in seen:
                seen.add(number)
                yield number, each

    def _find(self, number: int) -> FrozenTrial | None:
        return next((each for known, each in self._trials() if known == number), None)


def draw(history: Sequence[FrozenTrial], values: space.Space, seed: int, number: int) -> FrozenTrial:
    """Return a new trial, under way: random ones at first, then those of TPE (Bergstra et al. 2011, as optuna has it).
    **Pure.**

    history: the trials so far; those under way count as bad ones, so that several jobs do not draw the same (the
    constant liar of Ginsbourger et al. 2010). Of one that there is already another is drawn, if there is any.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = [each.params for each in history]
    for attempt in range(_DRAWS):
        key = hashlib.sha256(json.dumps([seed, number, attempt]).encode()).digest()
        sampler = optuna.samplers.TPESampler(seed=int.from_bytes(key[:4], "big"), constant_liar=True)
        apart = optuna.create_study(sampler=sampler)  # in memory: asking changes nothing of the search
        apart.add_trials(history)
        drawn = apart.ask({name: _distribution(each) for name, each in values.items()})
        params = {name: each.read(each.written(drawn.params[name])) for name, each in values.items()}
        if params not in known:
            break
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params=params,
        distributions={name: _distribution(each) for name, each in values.items()},
        user_attrs={search.TRIAL: number},
    )


def _distribution(values: space.Range | space.Choice) -> Any:
    from optuna import distributions

    if isinstance(values, space.Choice):
        return distributions.CategoricalDistribution(values.values)
    if values.is_whole:
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.is_log)
    return distributions.FloatDistribution(values.low, values.high, log=values.is_log)


def _cut_torn_line(path: Path, lock: JournalFileOpenLock) -> None:
    """Remove a last line that a kill or a full disk cut off: a line behind it would make the file unreadable."""
    if not path.exists() or _last_byte(path) in (b"", b"\n"):
        return
    lock.acquire()
    try:
        if _last_byte(path) not in (b"", b"\n"):  # nobody is just writing it
            content = path.read_bytes()
            with disk.named(path):
                os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        return stream.read()


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else "off" if value is None else str(value)
