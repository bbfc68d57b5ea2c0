"""Preparing the rows of a test as one rank does."""

from __future__ import annotations

from pathlib import Path

from ringtune.train import config, data, tables
from ringtune.train.columns import Columns
from ringtune.train.stop import StopFlag
from ringtune.train.task import Task
from tiny import make_tokenizer


class Alone:
    """The only rank of a job."""

    rank = local_rank = 0

    def work_together(self, work, stop, name):
        return work()

    def gather_values(self, value, name):
        return [value]


def settings_of(tmp_path, **changes) -> config.TrainConfig:
    return config.TrainConfig("m", cache_dir=str(tmp_path / "cache"), max_seq_length=16, **changes)


def prepare(tmp_path, settings, stop=None, comm=None) -> tables.Tables:
    return tables.prepare(settings, make_tokenizer(tmp_path / "model"), comm or Alone(), stop or StopFlag())


def load(tmp_path, train, dev=None, name="train.csv", **settings) -> tables.Tables:
    (tmp_path / name).write_bytes(train if isinstance(train, bytes) else train.encode())
    files = {"train_file": str(tmp_path / name)}
    if dev is not None:
        (tmp_path / f"dev_{name}").write_text(dev)
        files["validation_file"] = str(tmp_path / f"dev_{name}")
    return prepare(tmp_path, settings_of(tmp_path, **files, **settings))


def task(*arguments, **settings) -> Task:
    return load(*arguments, **settings).task


def texts(path: Path) -> list[str]:
    """Return the texts that training reads of a file."""
    sources = data.open_splits(config.TrainConfig("m", train_file=str(path)))
    return [
        each for batch in sources["train"].read(Columns(("text",), "label")) for each in batch["text/0"].to_pylist()
    ]


GOOD = "text,label\nfine,up\nbad,down\n"
