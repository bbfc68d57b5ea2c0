"""Column files whose endings tables and texts have, too: training reads them by ``--task``, prediction by content."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from ringtune.train import formats
from ringtune.train.compression import plain_ending
from ringtune.train.conll_rows import ConllFile
from ringtune.train.files import Files
from ringtune.train.task import Task
from ringtune.train.task.tags import OUTSIDE, is_tag
from ringtune.train.task.token_classification import TokenClassification

_NUM_LINES = 1000  # that are looked at of a file
_SHARE = 0.9  # of them that have a tag: one that lacks it is reported by its line when the rows are read


def recognise(files: Files, task: Task, label_name: str | None) -> Files:
    """Return files as column files if that is what they hold and the task is of tags, else as they are.

    label_name: of the column with the tags; the last one where it is not a number.
    """
    if not isinstance(task, TokenClassification):
        return files
    if any(plain_ending(path) not in formats.COLUMN_FILES for path in files.paths):
        return files
    if not all(_holds_tags(path, label_name or formats.TAGS, task.types) for path in files.paths):
        return files
    note = f"its lines end in tags: it is read as a column file (--input_format {files.kind} reads it otherwise)"
    return replace(files, kind=formats.CONLL, notes=(*files.notes, note))


def _holds_tags(path: Path, label_name: str, types: tuple[str, ...]) -> bool:
    """Return whether the lines of a file are words with tags, some of which are O, or of types that are known."""
    file = ConllFile(path, "words", label_name)
    if len(file.names) < 2:
        return False
    place = file.names.index(label_name) if label_name in file.names else len(file.names) - 1
    lines = [fields for _, fields in itertools.islice(file.lines(), _NUM_LINES) if fields]
    tags = [fields[place] for fields in lines if len(fields) == len(file.names) and is_tag(fields[place])]
    is_known = any(tag == OUTSIDE or tag[2:] in types for tag in tags)
    return len(lines) > 1 and len(tags) >= _SHARE * len(lines) and is_known
