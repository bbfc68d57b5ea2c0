"""From files to memory-mapped token tables: one rank of each node tokenises, the others wait for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train import data, tokens
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError, cache_folder
from ringtune.train.progress import Progress
from ringtune.train.stop import StopWatch


@dataclass(frozen=True)
class Tables:
    """The tokenised rows of a run, read-only and memory-mapped on every rank."""

    task: data.Task
    train: tokens.TokenTable
    validation: Mapping[str, tokens.TokenTable]  # by the suffix of its scores: "" or, for MNLI, "" and "mm"
    test: tokens.TokenTable | None
    digest: str  # of the rows as read


@dataclass(frozen=True)
class _Prepared:
    """What the tokenising rank of a node tells the others."""

    task: data.Task
    key: str  # the name of the tables' folder in the cache of each host
    names: tuple[str, ...]
    digest: str


def prepare(config: TrainConfig, tokenizer: Any, comm: Comm, stop: StopWatch) -> Tables:
    """Return the run's tables; tokenises at most once per node and never again. **Collective.**

    Raises UsageError for rows that cannot be used, StopRequested if one asked for it meanwhile; a killed tokeniser
    leaves only a temporary folder that the next one replaces.
    """

    def work() -> _Prepared | None:
        return _tokenise(config, tokenizer, stop, shown=comm.rank == 0) if comm.local_rank == 0 else None

    mine = comm.work_together(work, stop, "tables/prepare")
    everyone = [each for each in comm.gather_values(mine, "tables/prepared") if each is not None]
    first = everyone[0]
    for each in everyone:
        if (each.digest, each.key) != (first.digest, first.key):
            raise UsageError(
                "data",
                "hosts read different rows under the same names",
                legal="the same files on every host",
                todo="copy the files, or put them on a shared file system",
            )
    folder = _folder(config, first.key)  # this host's own: its cache may lie elsewhere than that of rank 0's host
    opened = {name: tokens.TokenTable.open(folder / name) for name in first.names}
    return Tables(
        task=first.task,
        train=opened["train"],
        validation={name.removeprefix("validation"): each for name, each in opened.items() if name[0] == "v"},
        test=opened.get("test"),
        digest=first.digest,
    )


def _folder(config: TrainConfig, key: str) -> Path:
    return cache_folder(config.cache_dir) / "tokens" / key


def _tokenise(config: TrainConfig, tokenizer: Any, stop: StopWatch, *, shown: bool) -> _Prepared:
    source = data.DataSource(
        task_name=config.task_name,
        dataset_name=config.dataset_name,
        dataset_config_name=config.dataset_config_name,
        train_file=config.train_file,
        validation_file=config.validation_file,
        test_file=config.test_file,
        text_column_names=config.text_column_names,
        label_column_name=config.label_column_name,
        max_train_samples=config.max_train_samples,
        max_eval_samples=config.max_eval_samples,
    )
    raw = _scratch(cache_folder(config.cache_dir) / "raw")
    try:
        splits, task = data.load(source, regression=config.regression, cache_dir=raw)
        if splits.train is None:
            raise UsageError(
                "data", "there are no training rows", legal="--train_file or a data set with a train split"
            )
        key = tokens.token_key(splits, task, tokenizer, config.max_seq_length)
        folder = _folder(config, key)
        named = {"train": splits.train}
        named |= {f"validation{suffix}": each for suffix, each in splits.validation.items()}
        if splits.test is not None:
            named["test"] = splits.test
        for name, rows in named.items():
            bar = Progress(len(rows), f"tokenising {name}", shown=shown)
            tokens.write(folder / name, rows, task, tokenizer, config.max_seq_length, stop.is_set, bar.update)
            bar.close()
        return _Prepared(task, key, tuple(named), splits.digest)
    finally:
        shutil.rmtree(raw, ignore_errors=True)


def _scratch(parent: Path) -> Path:
    """Return a new folder of this process alone: hosts that share the cache may give their processes the same number.

    Raises UsageError where none can be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise UsageError(
            f"--cache_dir {parent.parent}",
            str(error.strerror),
            legal="a folder one may write to",
            todo="choose another, or set $RINGTUNE_CACHE",
        ) from None
