"""The rows to predict: a file, a data set, stdin, or what a Python program has in its hands."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from ringtune.train import (
    arrow_rows,
    choice_columns,
    chunks,
    columns,
    data,
    file_flags,
    files,
    formats,
    label_sets,
    mask_settings,
    question_columns,
    reader,
)
from ringtune.train.columns import Columns
from ringtune.train.compression import plain_ending
from ringtune.train.contract import UsageError
from ringtune.train.files import Files
from ringtune.train.json_rows import Row, shown
from ringtune.train.label_sets import LabelSets
from ringtune.train.predict import column_files
from ringtune.train.predict.config import ALL_COLUMNS, PredictConfig
from ringtune.train.shapes import CHOICES, SPANS, TEXT, WORDS, shape_of
from ringtune.train.source import Place, Source, row_batches
from ringtune.train.task import Task
from ringtune.train.task.mask_filling import MaskFilling, with_masks
from ringtune.train.task.multiple_choice import MultipleChoice
from ringtune.train.task.question_answering import QuestionAnswering

DEFAULT_LABEL = "label"
_TEXT_NAMES = ("text", "text_pair")


def open_source(config: PredictConfig, task: Task, stdin: Path | None = None) -> Source:
    """Return the input of a prediction. stdin: the file that holds what came from there. Raises UsageError."""
    label_name = config.label_column_name or (task.columns.label if task.columns else None)
    if stdin is not None:
        formats.require_file(stdin, "stdin")
        found = Files("stdin", str(config.input_format), (stdin,))
    elif names_files(config):
        found = find_files(config)
        found = found if config.input_format else column_files.recognise(found, task, label_name)
    else:
        source = _open_data_set(config)
        file_flags.refuse_unused(config, [source])
        return with_masks(source, task)
    file_flags.refuse_of_data_sets(config, found.where)
    names = columns.split_names(config.text_column_names) or (task.columns.text if task.columns else _TEXT_NAMES)
    source = reader.open_files(
        found,
        text_name=names[0],
        label_name=label_name or formats.TAGS,
        delimiter=config.csv_delimiter,
        quoting=config.csv_quoting,
        data_field=config.data_field,
    )
    file_flags.refuse_unused(config, [source])
    return with_masks(source, task)


def find_files(config: PredictConfig) -> Files:
    """Return the files of an input that is files. Raises UsageError."""
    return files.find(config.input, "--input", formats.BY_ENDING, config.input_format)


def names_files(config: PredictConfig) -> bool:
    """Return whether the input is files, not a data set: a hub's name, a saved one, or a folder with sub-folders."""
    if config.input_format is not None:
        return True
    entries = files.entries_of(config.input)
    if len(entries) != 1 or files.is_pattern(entries[0]):
        return True
    path = Path(entries[0])
    if not path.is_dir():
        return path.exists() or plain_ending(path) in formats.BY_ENDING
    folders = {each for each in path.iterdir() if each.is_dir()}
    has_files = any(plain_ending(each) in formats.BY_ENDING for each in path.iterdir() if each not in folders)
    is_laid_out = bool(folders) and not has_files
    return not (config.dataset_split or config.dataset_config_name or data.holds_data_set(path) or is_laid_out)


def _open_data_set(config: PredictConfig) -> Source:
    file_flags.refuse_configuration(config, config.input)
    where = data.repository_name(config.input, config.dataset_config_name)
    loaded = data.load_repository(
        config.input, config.dataset_config_name, where, "a file; there is no file of that name"
    )
    split = config.dataset_split or (next(iter(loaded)) if len(loaded) == 1 else "test")
    if split not in loaded:
        raise UsageError(
            "--dataset_split", f"{where} has no split {split}", legal=", ".join(map(str, loaded)), todo="name one"
        )
    return arrow_rows.open_data_set(loaded[split], f"{where}, split {split}")


def choose_columns(source: Source, config: PredictConfig, task: Task) -> Columns:
    """Return the columns that are read: as asked, else those the model was trained on. **Pure.**

    For a model whose training is not known they are chosen by training's rules. Raises UsageError for one that is not
    there.
    """
    if _reads_questions(task):
        return _question_columns(source, config, task)
    trained = task.columns
    if isinstance(task, MaskFilling):
        return _masked_columns(source, config, trained)
    label = config.label_column_name or (trained.label if trained else None) or DEFAULT_LABEL
    sets = _label_sets(source, config, task, label)
    labels = (sets and sets.columns) or (label,)
    read = _without_label(source, config, task, label, labels)
    text = read.text
    kept = _kept_columns(source, config)
    if config.min_confidence is not None and config.keep_columns is None:
        kept = text  # a row of the output is not that of the input in its place
    asked_label = labels if config.label_column_name or config.slice_by else ()
    columns.require_columns(source.names, (*text, *kept, *asked_label), source.where)
    sliced = columns.split_once(config.slice_by, "--slice_by")
    columns.require_columns(source.names, sliced, source.where, "--slice_by")
    is_labelled = set(labels) <= set(source.names) and not set(labels) & set(text)
    if read.form == CHOICES or trained is None or trained.form == TEXT:
        return replace(read, label=label if is_labelled else None, kept=kept, sliced=sliced, sets=sets)
    form = WORDS if source.shapes.get(text[0]) == WORDS else SPANS
    is_labelled = is_labelled and source.shapes.get(label) == form
    return Columns(text, label if is_labelled else None, kept, sliced, form)


def _without_label(source: Source, config: PredictConfig, task: Task, label: str, labels: tuple[str, ...]) -> Columns:
    """Return the columns with the texts: as asked, those of the training, or by training's rules."""
    trained, asked = task.columns, config.text_column_names
    if trained and not asked:
        missing = [name for name in trained.text if name not in source.names]
        if missing:
            near = columns.nearest(missing[0], source.names)
            raise UsageError(
                source.where,
                f"there is no column {missing[0][:40]!r}, which the model was trained on",
                legal=f"it has {columns.shown_names(source.names)}",
                todo=(f"the nearest is {columns.shown_name(near)}; " if near else "")
                + "name the column with the text with --text_column_names",
            )
    if isinstance(task, MultipleChoice):
        found = trained
        if found is None or asked:
            arguments = {"text": asked, "label": label, "task": choice_columns.TASK}
            found = choice_columns.choose(source.names, source.lists, source.where, **arguments)
        assert found is not None  # choices were asked for
        if len(found.choices) > task.width:
            raise UsageError(
                source.where, f"{len(found.choices)} columns hold choices", legal=f"{task.width}, as in training"
            )
        return replace(found, most_choices=task.width)
    if trained and not asked:
        return Columns(trained.text, None)
    others = [name for name in source.names if name not in labels or name == label]
    return Columns(columns.choose_text_columns(others, source.where, asked=asked, label=label), None)


def _masked_columns(source: Source, config: PredictConfig, trained: Columns | None) -> Columns:
    """Return the columns of texts whose masks are to be filled, as `choose_columns` does: they have no labels."""
    for name in ("label_column_name", "label_separator", "slice_by"):
        if getattr(config, name):
            raise UsageError(f"--{name}", "masks are filled, and not scored", todo="leave it out")
    asked = config.text_column_names
    if trained is None or asked:
        text = columns.choose_text_columns(source.names, source.where, asked=asked, label=DEFAULT_LABEL)
    else:
        text = trained.text
    mask_settings.require_one_text(text, source.where)
    kept = _kept_columns(source, config)
    columns.require_columns(source.names, (*text, *kept), source.where)
    return Columns(text, None, kept)


def _kept_columns(source: Source, config: PredictConfig) -> tuple[str, ...]:
    """Return the columns to write beside the predictions. Raises UsageError for one that is named twice."""
    is_all = config.keep_columns == ALL_COLUMNS
    return source.names if is_all else columns.split_once(config.keep_columns, "--keep_columns")


def _reads_questions(task: Task) -> bool:
    return isinstance(task, QuestionAnswering)


def _question_columns(source: Source, config: PredictConfig, task: Task) -> Columns:
    """Return the columns of question, context and answers, and those to keep. Raises UsageError."""
    _refuse_separator(config, task)
    found = question_columns.of_prediction(
        source.names,
        source.shapes,
        source.lists,
        source.where,
        trained=task.columns,
        text=config.text_column_names,
        label=config.label_column_name,
    )
    kept = _kept_columns(source, config)
    columns.require_columns(source.names, kept, source.where)
    sliced = columns.split_once(config.slice_by, "--slice_by")
    columns.require_columns(source.names, sliced, source.where, "--slice_by")
    return replace(found, kept=kept, sliced=sliced)


def _refuse_separator(config: PredictConfig, task: Task) -> None:
    if config.label_separator is not None:
        wrong = f"the model gives no row several labels: {task.describe()}"
        where = f"--label_separator {config.label_separator}"
        raise UsageError(where, wrong, legal="a model that does", todo="leave it out")


def _label_sets(source: Source, config: PredictConfig, task: Task, label: str) -> LabelSets | None:
    """Return how the true labels are written; None for a model that gives one."""
    if not task.has_several_labels:
        _refuse_separator(config, task)
        return None
    separator = config.label_separator
    trained = task.columns.sets if task.columns else None
    if separator is None and trained is not None and label not in source.lists:
        separator = trained.separator
    return label_sets.choose(source.names, source.lists, source.where, asked=label, separator=separator)


def in_chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Regroup batches into chunks; only the last may have fewer rows than its size."""
    waiting: list[pa.RecordBatch] = []
    wanted = map(chunks.size, itertools.count())
    size = next(wanted)
    for batch in batches:
        waiting.append(batch)
        while sum(each.num_rows for each in waiting) >= size:
            joined = pa.concat_batches(waiting)
            yield joined.slice(0, size)
            waiting = [joined.slice(size)]
            size = next(wanted)
    if any(each.num_rows for each in waiting):
        yield pa.concat_batches(waiting)


# Rows in memory


def rows_in_memory(items: Iterable[Any], config: PredictConfig, task: Task) -> Source:
    """Return texts, pairs of texts or dictionaries as a source; the first of them decides which. Raises UsageError."""
    iterator = iter(items)
    first = next(iterator, None)
    if first is None:
        raise UsageError("input", "there are no rows in it", legal="at least one text, pair or dictionary")
    shapes: dict[str, str] = {}
    reads_words = task.columns is not None and task.columns.form in (WORDS, SPANS)
    if isinstance(first, Mapping):
        names = tuple(map(str, first))
        shapes = {str(name): shape for name, value in first.items() if (shape := shape_of(value))}
    elif reads_words and isinstance(first, list):
        names = (task.columns.text if task.columns else _TEXT_NAMES)[:1]
        shapes = {names[0]: WORDS}
    elif isinstance(first, str):
        names = (task.columns.text if task.columns else _TEXT_NAMES)[:1]
    else:
        others = question_columns.TEXT_NAMES if _reads_questions(task) else _TEXT_NAMES
        names = task.columns.text if task.columns and len(task.columns.text) == 2 else others

    place = Place("input", ": row ")

    def rows() -> Iterator[Row]:
        for number, item in enumerate(itertools.chain([first], iterator), start=1):
            if reads_words and isinstance(item, list):
                yield number, {names[0]: item}, None
            else:
                yield number, *_values(item, names, type(first))

    def read(chosen: Columns) -> Iterator[pa.RecordBatch]:
        return row_batches(rows(), replace(chosen, label=None), place, holds_json=True)

    lists = frozenset(name for name, value in _values(first, names, type(first))[0].items() if isinstance(value, list))
    found = Source(place.name, (place,), names, "", read, shapes=shapes, lists=lists)
    file_flags.refuse_of_data_sets(config, "what is given")
    file_flags.refuse_unused(config, [found])
    return with_masks(found, task)


def _values(item: Any, names: tuple[str, ...], kind: type) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(item, Mapping) and issubclass(kind, Mapping):
        return item, None
    if isinstance(item, str) and kind is str:
        return {names[0]: item}, None
    if isinstance(item, (tuple, list)) and len(item) == 2 and issubclass(kind, (tuple, list)):
        return dict(zip(names, item, strict=True)), None
    what = "a dictionary" if issubclass(kind, Mapping) else "a text" if kind is str else "a pair of texts"
    return {}, f"it is {shown(item)}, not {what}"
