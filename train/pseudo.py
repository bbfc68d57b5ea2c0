"""Training rows whose labels a model predicted: how they are read (``--pseudo_file``)."""

from __future__ import annotations

from dataclasses import replace

from ringtune.train import files, formats, label_sets, reader
from ringtune.train.columns import Columns, require_columns, shown_name
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.shapes import ANSWERS, CHOICES, SPANS, TEXT, WORDS
from ringtune.train.source import Source

FLAG = "--pseudo_file"
#: Where `ringtune-predict` writes what it predicts: a class, and several labels.
PREDICTED_LABEL, PREDICTED_LABELS = "label", "labels"
#: What rows have that are no texts with labels.
_OTHERS = {WORDS: "tags of words", SPANS: "entities", CHOICES: "choices", ANSWERS: "answers"}


def open_rows(config: TrainConfig) -> Source:
    """Return the rows of ``--pseudo_file``. Raises UsageError."""
    assert config.pseudo_file
    return reader.open_files(
        files.find(config.pseudo_file, FLAG, formats.TABLES),
        text_name="text",
        delimiter=config.csv_delimiter,
        quoting=config.csv_quoting,
        data_field=config.data_field,
    )


def choose_columns(trained: Columns, source: Source) -> Columns:
    """Return the columns of rows with predicted labels. **Pure.** trained: those of the training rows.

    The texts stand in columns of the same names. So does the label, or in the column that `ringtune-predict` writes.
    Raises UsageError where it may be either, and for rows of tags.
    """
    if trained.form != TEXT or trained.label is None:
        what = _OTHERS.get(trained.form, "no labels")
        raise UsageError(FLAG, f"the rows have {what}", legal="texts with labels", todo="leave it out")
    names = source.names
    require_columns(names, trained.text, source.where)
    predicted = PREDICTED_LABEL if trained.sets is None else PREDICTED_LABELS
    has_own = set(trained.labels) <= set(names)
    if has_own and predicted in names and predicted not in (*trained.labels, *trained.text):
        own = ",".join(map(shown_name, trained.labels))
        raise UsageError(
            f"{FLAG} {source.where}",
            f"the label may be that of column {own}, as in training, or the predicted one of column {predicted}",
            legal="one of them",
            todo=f"leave the other out, as ringtune-predict does with --keep_columns {','.join(trained.text)}",
        )
    if has_own or predicted not in names:
        require_columns(names, trained.labels, source.where)
        return trained
    sets = trained.sets and label_sets.choose(names, source.lists, source.where, asked=predicted, separator=None)
    if trained.sets is not None and sets is None:
        raise UsageError(
            f"{FLAG} {source.where}",
            f"column {predicted} holds no lists",
            legal="predictions as .jsonl or .parquet, where a row may have several labels",
        )
    return replace(trained, label=predicted, sets=sets)
