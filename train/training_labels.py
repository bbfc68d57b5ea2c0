"""What the training rows are to teach: their labels, read once before any row is tokenised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringtune.train import data, mask_settings, task
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.rows import RowFile
from ringtune.train.shapes import ANSWERS, CHOICES, TEXT
from ringtune.train.source import Source
from ringtune.train.task import ordinal
from ringtune.train.task.answers import AnswerColumn
from ringtune.train.task.choice_labels import ChoiceColumn
from ringtune.train.task.label_names import LabelNames
from ringtune.train.task.labels import LabelColumn
from ringtune.train.task.masking import Masking, Vocabulary
from ringtune.train.task.ordinal import LevelColumn
from ringtune.train.task.tags import TagColumn


def read(
    config: TrainConfig,
    tokenizer: Any,
    sources: Mapping[str, Source],
    columns: Columns,
    files: Mapping[str, RowFile],
) -> task.Found:
    """Return the labels of all training rows, also of those that a sample leaves out; of texts alone how they are
    masked.

    columns: of the training rows. files: the rows of each split. Raises UsageError for labels that cannot be used.
    """
    if config.task == mask_settings.TASK:
        probability = config.mlm_probability or mask_settings.PROBABILITY
        return Masking(probability, config.whole_word_mask, config.line_by_line, Vocabulary.of(tokenizer))
    if columns.form == CHOICES:
        return _choices(config, sources[data.TRAIN], columns, files)
    labels = _empty(config, sources[data.TRAIN], columns)
    for batch in files[data.TRAIN]:
        labels.add(batch.column("label"), sources[data.TRAIN].places(batch))
    return labels


def _empty(
    config: TrainConfig, source: Source, columns: Columns
) -> LabelColumn | LabelNames | TagColumn | AnswerColumn | LevelColumn:
    """Return what takes the labels of these columns."""
    name = str(columns.label)
    declared = source.class_names.get(name, ())
    if columns.form == ANSWERS:
        return AnswerColumn(name, doc_stride=config.doc_stride)
    if config.task == ordinal.TASK:
        return LevelColumn(name, declared)
    if columns.form != TEXT:
        return TagColumn(name, scheme=config.tag_scheme, declared=declared)
    if columns.sets is not None:
        return LabelNames(columns, declared=declared)
    regression = True if config.task_name == "stsb" and config.regression is None else config.regression
    return LabelColumn(name, regression=regression, declared=declared)


def _choices(config: TrainConfig, source: Source, columns: Columns, files: Mapping[str, RowFile]) -> ChoiceColumn:
    """Return the labels beside their choices, and how many choices rows of any split have."""
    labels = ChoiceColumn(str(columns.label), config.choice_labels)
    for split, rows in files.items():
        for batch in rows:
            if split == data.TRAIN:
                labels.add(batch, source.places(batch))
            else:
                labels.add_choices(batch)
    return labels
