"""Settings that say how files or data sets are read, where none is read so: they could have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringtune.train import data, formats
from ringtune.train.contract import UsageError
from ringtune.train.csv_rule import AUTO
from ringtune.train.source import Source

#: The formats that a setting is of.
_OF_FORMATS = {
    "csv_delimiter": ("csv", "tsv"),
    "csv_quoting": ("csv", "tsv"),
    "data_field": formats.JSON_KINDS,
}
_OF_DATA_SETS = ("dataset_config_name", "dataset_split")


def refuse_unused(config: Any, sources: Sequence[Source]) -> None:
    """Raise UsageError for a setting of a format that none of the sources has.

    config: of training, or of prediction. sources: all that are read by it, the first of them for the message.
    """
    kinds = {each.kind for each in sources}
    for name, legal in _OF_FORMATS.items():
        value = getattr(config, name)
        if value not in (None, AUTO) and not kinds & set(legal):
            first = sources[0]
            wrong = f"{first.where} is read as {first.kind}" if first.kind else f"{first.where} is no file"
            raise UsageError(f"--{name} {value}", wrong, legal=f"of {' or '.join(legal)}", todo="leave it out")


def refuse_of_data_sets(config: Any, where: str) -> None:
    """Raise UsageError for a setting of data sets. where: what is read instead of one."""
    for name in _OF_DATA_SETS:
        if getattr(config, name, None):
            value = getattr(config, name)
            raise UsageError(f"--{name} {value}", f"{where} is no data set with a name", todo="leave it out")


def refuse_configuration(config: Any, folder: str) -> None:
    """Raise UsageError for the configuration of a data set that is saved in a folder, which has none."""
    if config.dataset_config_name and data.holds_data_set(Path(folder)):
        raise UsageError(
            f"--dataset_config_name {config.dataset_config_name}",
            f"{folder} is a saved data set, which has no configurations",
            todo="leave it out",
        )
