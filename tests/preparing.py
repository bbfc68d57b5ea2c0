"""Preparing the rows of a test as one rank does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from ringtune.train import config, data, tables
from ringtune.train.columns import Columns
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.source import Source
from ringtune.train.stop import StopFlag
from ringtune.train.task import Task
from ringtune.train.task.classification import Classification
from tiny import make_tokenizer

TRAINED = Classification(Columns(("text",), "label"), ("down", "up"))


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


def train(tmp_path: Path, train_file: Path | str, **settings) -> tables.Tables:
    """Return what training makes of files."""
    return prepare(tmp_path, settings_of(tmp_path, train_file=str(train_file), **settings))


def predicted(value: Path | str, **flags) -> tuple[list[pa.RecordBatch], Source]:
    """Return the rows that prediction reads for a model of the columns text and label, and their source."""
    settings = PredictConfig("m", str(value), "out.csv", **flags)
    source = inputs.open_source(settings, TRAINED)
    return list(source.read(inputs.choose_columns(source, settings, TRAINED))), source


def texts_predicted(value: Path | str, **flags) -> list[str | None]:
    """Return the texts that prediction reads, None for a row that cannot be used."""
    return [text for batch in predicted(value, **flags)[0] for text in batch["text/0"].to_pylist()]


def texts(path: Path) -> list[str]:
    """Return the texts that training reads of a file."""
    sources = data.open_splits(config.TrainConfig("m", train_file=str(path)))
    return [
        each for batch in sources["train"].read(Columns(("text",), "label")) for each in batch["text/0"].to_pylist()
    ]


GOOD = "text,label\nfine,up\nbad,down\n"
