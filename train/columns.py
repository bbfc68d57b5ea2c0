"""Which columns of a table matter: as the user named them, as a GLUE task has them, or by names that are well known.

Nothing is guessed: where the names leave two readings, the user is asked for one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ringtune.train.contract import UsageError

#: Columns of the GLUE tasks (Wang et al. 2019), as the data set `nyu-mll/glue` names them.
GLUE_COLUMNS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
#: Names that data sets of pairs use, in the order in which a model reads them; GLUE's first.
PAIRS = (
    *sorted({each for each in GLUE_COLUMNS.values() if len(each) == 2}),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "context"),
)
#: Names that data sets of single texts use.
SINGLES = ("text", "sentence", "content", "review", "document", "comment", "tweet", "body")
_NEVER_TEXT = ("idx", "id", "index", "Unnamed: 0", "")
_SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    text: tuple[str, ...]  # one, or two for pairs
    label: str | None  # None: the rows have no labels
    kept: tuple[str, ...] = ()  # written beside the predictions

    def describe(self, names: Sequence[str], label_note: str = "") -> str:
        """Return the columns in one line for the user. **Pure.**

        names: all columns of the table. label_note: what the labels are, ``2 classes``.
        """
        several = "s" if len(self.text) > 1 else ""
        parts = [f"text: column{several} {', '.join(self.text)}"]
        parts.append(f"label: column {self.label}{label_note and ', '}{label_note}" if self.label else "no label")
        if self.kept:
            parts.append(f"kept: {', '.join(self.kept)}")
        unread = [name for name in names if name not in (*self.text, self.label, *self.kept)]
        if unread:
            parts.append(f"not read: {shown_names(unread)}")
        return "; ".join(parts)


def require_glue_task(task_name: str | None) -> None:
    """Raise UsageError for a name that is no GLUE task's. **Pure.**"""
    if task_name and task_name not in GLUE_COLUMNS:
        near = difflib.get_close_matches(task_name, GLUE_COLUMNS, n=1)
        raise UsageError(
            "--task_name",
            f"{task_name} is no GLUE task",
            legal=", ".join(GLUE_COLUMNS),
            todo=f"did you mean {near[0]}" if near else "",
        )


def split_names(joined: str | None) -> tuple[str, ...]:
    """Return the column names of a flag such as ``a,b``. **Pure.**"""
    return tuple(name.strip() for name in joined.split(",") if name.strip()) if joined else ()


def choose_text_columns(
    names: Sequence[str], where: str, *, asked: str | None, label: str, task_name: str | None = None
) -> tuple[str, ...]:
    """Return the one or two text columns of a table. **Pure.**

    names: all columns. asked: ``--text_column_names``. Raises UsageError if there is none, or ``asked`` is not one or
    two.
    """
    if asked:
        chosen = tuple(name.strip() for name in asked.split(","))
        if len(chosen) > 2 or not all(chosen) or len(set(chosen)) < len(chosen):
            raise UsageError(
                "--text_column_names",
                f"{asked!r} names {len(chosen)} columns",
                legal="one column, or two different ones joined by a comma",
            )
        return chosen
    if task_name in GLUE_COLUMNS and set(GLUE_COLUMNS[task_name]) <= set(names):
        return GLUE_COLUMNS[task_name]
    others = [name for name in names if name not in (label, *_NEVER_TEXT)]
    readings: list[tuple[str, ...]] = [pair for pair in PAIRS if set(pair) <= set(others)]
    in_pairs = {name for pair in readings for name in pair}
    readings += [(name,) for name in SINGLES if name in others and name not in in_pairs]
    if not readings and len(others) == 1:
        readings = [(others[0],)]
    if len(readings) == 1:
        return readings[0]
    if not others:
        raise UsageError(where, "there is no text column", legal=f"it has {shown_names(names)}")
    examples = [",".join(each) for each in readings] or [others[0], ",".join(others[:2])]
    ways = " or ".join(f"--text_column_names {each}" for each in examples[:3])
    raise UsageError(
        where,
        f"which column holds the text? It has {shown_names(names)}",
        legal="one column, or two for pairs of texts",
        todo=f"for example {ways}",
    )


def shown_names(names: Sequence[str]) -> str:
    """Return names for a message, the first few of many. **Pure.**"""
    shown = ", ".join(name[:40] for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def require_columns(names: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise UsageError for the first wanted column that a table lacks, or has twice. **Pure.**"""
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            nearest = f"the nearest is {near[0]}; " if near else ""
            raise UsageError(
                where,
                f"there is no column {name!r}",
                legal=f"it has {shown_names(names)}",
                todo=f"{nearest}see --text_column_names and --label_column_name",
            )
        if names.count(name) > 1:
            raise UsageError(f"{where}: the header", f"it has {name!r} twice", legal="each name once")
