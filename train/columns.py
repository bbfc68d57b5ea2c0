"""Which columns of a table matter: as the user named them, as a GLUE task has them, or by names that are well known.

Nothing is guessed: where the names leave two readings, the user is asked for one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ringtune.train.contract import UsageError
from ringtune.train.label_sets import LabelSets
from ringtune.train.shapes import ANSWERS, CHOICES, SPANS, TEXT, WORDS
from ringtune.train.text_names import GLUE_COLUMNS, PAIRS, SINGLES

#: What a row of each form has, for the line that reports the columns.
_FORMS = {
    TEXT: ("text", "label"),
    WORDS: ("words", "tags"),
    SPANS: ("text", "entities"),
    CHOICES: ("", "label"),
    ANSWERS: ("question and context", "answers"),
}
_NEVER_TEXT = ("idx", "id", "index", "Unnamed: 0", "")
_SHOWN, _LONGEST = 12, 40  # names in a message, characters of a name
_MOST_WORDS = 4  # of a column's name; what has more is a text


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    text: tuple[str, ...]  # one, or two for pairs; a context and its choices
    label: str | None  # None: the rows have no labels; of several columns, their names joined by commas
    kept: tuple[str, ...] = ()  # written beside the predictions
    sliced: tuple[str, ...] = ()  # by whose values the rows are scored, too
    form: str = TEXT
    sets: LabelSets | None = None  # how labels are written where a row may have several; None: it has one
    begin: str | None = None  # the text column whose text begins each choice
    most_choices: int | None = None  # of a row; None: any number

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns with labels: none, one, or one for each label."""
        return () if self.label is None else (self.sets.columns if self.sets else ()) or (self.label,)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The text columns that are no choices: of rows with choices, the context and perhaps what begins each."""
        return self.text[: 1 + (self.begin is not None)] if self.form == CHOICES else self.text

    @property
    def choices(self) -> tuple[str, ...]:
        """The columns with choices: one of lists, or one for each choice."""
        return self.text[len(self.contexts) :]

    def describe(self, names: Sequence[str], label_note: str = "") -> str:
        """Return the columns in one line for the user. **Pure.**

        names: all columns of the table. label_note: what the labels are, ``2 classes``.
        """
        several = "s" if len(self.text) > 1 else ""
        what, mark = _FORMS[self.form]
        parts = [self._describe_choices() if self.choices else f"{what}: column{several} {shown_names(self.text)}"]
        note = label_note and f", {label_note}"
        plural = "s" if len(self.labels) > 1 else ""
        parts.append(f"{mark}{plural}: column{plural} {shown_names(self.labels)}{note}" if self.label else f"no {mark}")
        if self.kept:
            parts.append(f"kept: {shown_names(self.kept)}")
        if self.sliced:
            parts.append(f"scored by: {shown_names(self.sliced)}")
        unread = [name for name in names if name not in (*self.text, *self.labels, *self.kept, *self.sliced)]
        if unread:
            parts.append(f"not read: {shown_names(unread)}")
        return "; ".join(parts)

    def _describe_choices(self) -> str:
        several = "s" if len(self.choices) > 1 else ""
        begin = f", each behind column {shown_name(self.begin)}" if self.begin else ""
        return (
            f"context: column {shown_name(self.text[0])}; choices: column{several} {shown_names(self.choices)}{begin}"
        )


def split_exact(asked: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a flag such as ``a,b``, blanks as `_asked_name` takes them, empty ones too. **Pure.**"""
    return tuple(_asked_name(name, names) for name in asked.split(","))


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


def split_once(joined: str | None, flag: str) -> tuple[str, ...]:
    """Return the names of a flag, as `split_names` does. Raises UsageError for one that is there twice. **Pure.**"""
    names = split_names(joined)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"{flag} {joined}", f"it names {shown_name(twice[0])} twice", legal="each column once")
    return names


def _asked_name(name: str, names: Sequence[str]) -> str:
    """Return which column a part of a flag means: blanks around it count only where a column has them. **Pure.**"""
    return name if name in names else name.strip()


def choose_text_columns(
    names: Sequence[str], where: str, *, asked: str | None, label: str, task_name: str | None = None
) -> tuple[str, ...]:
    """Return the one or two text columns of a table. **Pure.**

    names: all columns. asked: ``--text_column_names``. Raises UsageError if there is none, or ``asked`` is not one or
    two.
    """
    if asked:
        chosen = split_exact(asked, names)
        if len(chosen) > 2 or not all(chosen) or len(set(chosen)) < len(chosen):
            raise UsageError(
                "--text_column_names",
                f"{shown_name(asked)} names {len(chosen)} columns",
                legal="one column, or two different ones joined by a comma",
                todo="--task multiple_choice for a context and its choices" if len(chosen) > 2 else "",
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
    ways = "for example " + " or ".join(f"--text_column_names {shown_name(each)}" for each in examples[:3])
    hint = "" if readings or label in names else _without_header(names)
    raise UsageError(
        where,
        f"which column holds the text? It has {shown_names(names)}",
        legal="one column, or two for pairs of texts",
        todo=f"{hint}; else {ways}" if hint else ways,
    )


def _without_header(names: Sequence[str]) -> str:
    """Return what to do if names are a first row, which a file without a line of names has; "" for names. **Pure.**"""
    if names and (names[-1] == "O" or names[-1].startswith(("B-", "I-"))):
        return "if each line is a word and its tag, parted by blanks or tabs, the ending is .conll"
    if any(each.strip().isdecimal() or len(each.split()) > _MOST_WORDS for each in names):
        return "if that is a row of a file already, put a line with the names of columns before it, such as text,label"
    return ""


def shown_names(names: Sequence[str]) -> str:
    """Return names for a message, the first few of many. **Pure.**"""
    shown = ", ".join(map(shown_name, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def shown_name(name: str) -> str:
    """Return a name for a message: short, and quoted where it has blanks or what cannot be printed. **Pure.**"""
    short = name if len(name) <= _LONGEST else name[:_LONGEST] + "..."
    return short if short.isprintable() and short == " ".join(short.split()) and short else ascii(short)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the name that is most like another one, first but for case and blanks around it. **Pure.**"""
    same = [each for each in names if each.strip().lower() == name.strip().lower()]
    return next(iter(same or difflib.get_close_matches(name, names, n=1)), None)


def require_columns(
    names: Sequence[str], wanted: Sequence[str], where: str, flags: str = "--text_column_names and --label_column_name"
) -> None:
    """Raise UsageError for the first wanted column that a table lacks, or has twice. **Pure.**

    flags: those that name the columns.
    """
    for name in wanted:
        if name not in names:
            near = nearest(name, names)
            hint = f"the nearest is {shown_name(near)}" if near else _without_header(names)
            raise UsageError(
                where,
                f"there is no column {name[:_LONGEST]!r}",
                legal=f"it has {shown_names(names)}",
                todo=(hint and f"{hint}; ") + f"see {flags}",
            )
        if names.count(name) > 1:
            raise UsageError(f"{where}: the header", f"it has {name[:_LONGEST]!r} twice", legal="each name once")
