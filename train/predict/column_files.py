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
from ringtune.train.task.tags import is_tag
from ringtune.train.task.token_classification import TokenClassification

_NUM_ROWS = 100  # that are looked at of a file


def recognise(files: Files, task: Task) -> Files:
    """Return files as column files if that is what they hold and the task is of tags, else as they are."""
    could_be = isinstance(task, TokenClassification) and all(
        plain_ending(path) in formats.COLUMN_FILES for path in files.paths
    )
    if not could_be or not all(map(_holds_tags, files.paths)):
        return files
    note = f"its lines end in tags: it is read as a column file (--input_format {files.kind} reads it otherwise)"
    return replace(files, kind=formats.CONLL, notes=(*files.notes, note))


def _holds_tags(path: Path) -> bool:
    """Return whether each of the first lines of a file has a word and ends in a tag."""
    file = ConllFile(path, "words", formats.TAGS)
    rows = list(itertools.islice(file.rows(), _NUM_ROWS))
    return (
        len(file.names) > 1
        and bool(rows)
        and all(error is None and all(map(is_tag, values[formats.TAGS])) for _, values, error in rows)
    )
