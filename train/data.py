"""The rows that a training run is given: files, or the splits of a data set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringtune.train import (
    arrow_rows,
    choice_columns,
    columns,
    files,
    formats,
    label_sets,
    mask_settings,
    question_columns,
    reader,
    word_columns,
)
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.shapes import ANSWERS, CHOICES, SPANS, TEXT, WORDS
from ringtune.train.source import Source
from ringtune.train.task import ordinal

GLUE_REPOSITORY = "nyu-mll/glue"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: Splits of a data set by its own names for them; MNLI has two to validate on.
_SPLITS = {
    "train": TRAIN,
    "validation": VALIDATION,
    "validation_matched": VALIDATION,
    "validation_mismatched": f"{VALIDATION}mm",
    "validationmm": f"{VALIDATION}mm",
    "test": TEST,
    "test_matched": TEST,
}
#: Settings that decide which rows are used, and what they mean.
_SETTINGS = (
    "task_name",
    "text_column_names",
    "label_column_name",
    "regression",
    "csv_delimiter",
    "csv_quoting",
    "data_field",
    "max_train_samples",
    "max_eval_samples",
)


#: More of them, which count only where they are set: runs of before they were there go on.
_LATER_SETTINGS = ("task", "tag_scheme", "label_separator", "choice_labels", "doc_stride", *mask_settings.OWN)


def open_splits(config: TrainConfig) -> dict[str, Source]:
    """Return the rows of each split: ``train``, ``validation`` (of MNLI also ``validationmm``), ``test``.

    Raises UsageError for a file or a data set that cannot be used.
    """
    columns.require_glue_task(config.task_name)
    return _open_files(config) if config.train_file else _open_repository(config)


def digest(config: TrainConfig, sources: Mapping[str, Source]) -> str:
    """Return a sha256 over the content of all splits and the settings that decide what is used of them. **Pure.**"""
    content = {name: source.digest for name, source in sources.items()}
    settings = {name: getattr(config, name) for name in _SETTINGS}
    later = {name: getattr(config, name) for name in _LATER_SETTINGS}
    settings |= {name: value for name, value in later.items() if value is not None and value is not False}
    if config.window_stride is not None:
        settings["windows"] = [config.window_stride, config.window_pooling]
    if config.max_train_samples or config.max_eval_samples:
        settings["seed"] = config.seed  # draws the sample
    return hashlib.sha256(json.dumps([content, settings], sort_keys=True).encode()).hexdigest()


def choose_columns(config: TrainConfig, sources: Mapping[str, Source]) -> dict[str, Columns]:
    """Return the columns to read of each split: those of the training rows; test rows need no label. **Pure.**

    Raises UsageError for a column that a split lacks.
    """
    found = _choose_columns(config, sources[TRAIN])
    text, labels = found.text, found.labels
    sliced = columns.split_once(config.slice_by, "--slice_by")
    chosen = {}
    for name, source in sources.items():
        is_labelled = name != TEST or set(labels) <= set(source.names)
        columns.require_columns(source.names, (*text, *labels) if is_labelled else text, source.where)
        chosen[name] = found if is_labelled else replace(found, label=None)
        if name.startswith(VALIDATION) and sliced:
            columns.require_columns(source.names, sliced, source.where, "--slice_by")
            chosen[name] = replace(found, sliced=sliced)
    return chosen


def _choose_columns(config: TrainConfig, train: Source) -> Columns:
    """Return the columns of the training rows. Raises UsageError."""
    asked, label = config.text_column_names, config.label_column_name
    if config.task == mask_settings.TASK:
        text = columns.choose_text_columns(train.names, train.where, asked=asked, label=label)
        mask_settings.require_one_text(text, train.where)
        return Columns(text, None)
    found = _columns_of_other_forms(config, train)
    _refuse_others(config, found, train.where)
    if found is not None:
        return found
    sets = label_sets.choose(train.names, train.lists, train.where, asked=label, separator=config.label_separator)
    if sets is not None and config.regression:
        raise UsageError("--regression", f"{train.where}: a row may have several labels", todo="leave it out")
    if config.task == ordinal.TASK and (sets is not None or config.regression is not None):
        what = f"{train.where}: a row may have several labels" if sets is not None else "--regression is set"
        raise UsageError(f"--task {ordinal.TASK}", what, legal="one level a row", todo="leave one of them out")
    labels = (sets and sets.columns) or (label,)
    others = [name for name in train.names if name not in labels or name == label]
    text = columns.choose_text_columns(others, train.where, asked=asked, label=label, task_name=config.task_name)
    return Columns(text, label, sets=sets)


def _columns_of_other_forms(config: TrainConfig, train: Source) -> Columns | None:
    """Return the columns of rows that are no texts with labels, None if they are. Raises UsageError."""
    asked: dict[str, Any] = {"text": config.text_column_names, "label": config.label_column_name, "task": config.task}
    for task, choose in (
        (question_columns.TASK, question_columns.choose),
        (word_columns.TASK, word_columns.choose),
    ):
        found = choose(train.names, train.shapes, train.where, **asked) if config.task in (None, task) else None
        if found is not None:
            return found if _has_asked_labels(config, found, train) else None
    if config.task in (None, choice_columns.TASK):
        return choice_columns.choose(train.names, train.lists, train.where, **asked)
    return None


def _has_asked_labels(config: TrainConfig, found: Columns, train: Source) -> bool:
    """Return whether labels that were found by known names are those that are asked for; else rows are texts with
    these. Raises UsageError for labels that are not there, or are none of the task that is asked for."""
    asked = columns.split_exact(config.label_column_name, train.names)
    if found.label in asked or asked == (TrainConfig.label_column_name,):
        return True
    columns.require_columns(train.names, asked, train.where, "--label_column_name")
    if config.task is None:
        return False
    what = {WORDS: "lists of tags", SPANS: "lists of entities", ANSWERS: "answers"}[found.form]
    raise UsageError(
        f"--label_column_name {config.label_column_name}",
        f"column {columns.shown_names(asked)} of {train.where} holds no {what}",
        legal=f"a column such as {found.label}, which does",
    )


#: What rows of a form hold, for messages, and the settings that only rows of some forms have.
_HOLDS = {
    WORDS: "words with tags, or entities",
    SPANS: "words with tags, or entities",
    CHOICES: "a context with choices",
    ANSWERS: "questions with answers",
}
_OF_FORMS = {
    "tag_scheme": ((WORDS, SPANS), "words with tags, and no entities"),
    "choice_labels": ((CHOICES,), "context with choices"),
    "doc_stride": ((ANSWERS,), "questions with answers"),
}


def _refuse_others(config: TrainConfig, found: Columns | None, where: str) -> None:
    """Raise UsageError for a setting that is of other rows. found: the columns of rows of another form than texts."""
    form = found.form if found else TEXT
    for name in ("regression", "task_name", "label_separator") if found else ():
        if getattr(config, name) is not None:
            raise UsageError(
                f"--{name}", f"{where} holds {_HOLDS[form]}", legal="texts with labels", todo="leave it out"
            )
    for name, (forms, what) in _OF_FORMS.items():
        if getattr(config, name) is not None and form not in forms:
            raise UsageError(f"--{name}", f"{where} holds no {what}", todo="leave it out")


def row_limit(config: TrainConfig, split: str) -> int | None:
    """Return how many rows of a split are used, None for all. **Pure.**"""
    return {TRAIN: config.max_train_samples, TEST: None}.get(split, config.max_eval_samples)


def _open_files(config: TrainConfig) -> dict[str, Source]:
    named = {TRAIN: config.train_file, VALIDATION: config.validation_file, TEST: config.test_file}
    # Of one that is known to hold tags, also endings that tables or texts have otherwise.
    legal = {**formats.TABLES, **(formats.COLUMN_FILES if config.task == word_columns.TASK else {})}
    if config.task == mask_settings.TASK:
        legal = formats.BY_ENDING
    found = {split: name for split, name in named.items() if name}
    splits = {
        split: files.find(name, f"--{split}_file", legal)
        for split, name in found.items()
        if not holds_data_set(Path(name))
    }
    rules = reader.quoting_of_splits(splits, config.csv_delimiter, config.csv_quoting)

    def open_split(split: str, name: str) -> Source:
        if split not in splits:
            return _open_saved(name, f"--{split}_file {name}")
        several, quoting = rules[split]
        text_name, label_name = _names_of_nameless(config, several.kind)
        return reader.open_files(
            several,
            text_name=text_name,
            label_name=label_name,
            delimiter=config.csv_delimiter,
            quoting=quoting,
            data_field=config.data_field,
        )

    return {split: open_split(split, name) for split, name in found.items()}


def _names_of_nameless(config: TrainConfig, kind: str) -> tuple[str, str]:
    """Return what the first and the last column of files without names are called. kind: of the files. **Pure.**"""
    if kind != formats.CONLL:
        return "text", formats.TAGS
    label = config.label_column_name
    if config.init_from:  # names of the earlier run, which may have read files with names
        return config.text_column_names or "words", label
    return "words", label if label.isdecimal() else formats.TAGS


def _open_saved(name: str, flag: str) -> Source:
    """Return the rows of a data set that ``save_to_disk`` wrote. Raises UsageError for one of several splits."""
    loaded = load_repository(name, None, flag, "a file")
    if len(loaded) > 1:
        raise UsageError(
            flag, f"it has the splits {', '.join(loaded)}", legal="a data set of one split", todo="use --dataset_name"
        )
    return arrow_rows.open_data_set(next(iter(loaded.values())), name)


def _open_repository(config: TrainConfig) -> dict[str, Source]:
    name, configuration = config.dataset_name, config.dataset_config_name
    if config.task_name and not name:
        name, configuration = GLUE_REPOSITORY, config.task_name
    elif config.task_name and name and holds_data_set(Path(name) / config.task_name):
        name = str(Path(name) / config.task_name)  # GLUE's tasks, saved side by side
    where = repository_name(str(name), configuration)
    loaded = load_repository(str(name), configuration, where, "--train_file and --validation_file")
    found = {
        _SPLITS[str(split)]: arrow_rows.open_data_set(rows, f"{where}, split {_SPLITS[str(split)]}")
        for split, rows in loaded.items()
        if str(split) in _SPLITS
    }
    if TRAIN not in found:
        raise UsageError(
            where, f"it has no train split, only {', '.join(map(str, loaded))}", legal="a split named train"
        )
    return found


def repository_name(name: str, configuration: str | None) -> str:
    """Return a data set's name for messages. **Pure.**"""
    return f"data set {name}" + (f"/{configuration}" if configuration else "")


def holds_data_set(folder: Path) -> bool:
    """Return whether a folder is one that ``save_to_disk`` of the library ``datasets`` wrote."""
    is_split = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return is_split or (folder / "dataset_dict.json").is_file()


def load_repository(name: str, configuration: str | None, where: str, instead: str) -> Any:
    """Return the splits of a data set: a hub name, a folder of files, or one that ``save_to_disk`` wrote.

    instead: what to use where it cannot be loaded. Raises UsageError.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what is wrong is reported below, once
    try:
        if holds_data_set(Path(name)):
            loaded = datasets.load_from_disk(name)
            return loaded if isinstance(loaded, Mapping) else {TRAIN: loaded}
        return datasets.load_dataset(name, configuration)
    except Exception as error:  # many kinds: not found, offline, wrong configuration, broken files
        words = " ".join(str(error).split())[:200]
        raise UsageError(
            where,
            f"it cannot be loaded: {words}",
            legal="a hub name where there is a network, or a local folder",
            todo=f"download it elsewhere, or use {instead}",
        ) from None
