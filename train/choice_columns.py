"""Which columns hold a context and the choices that may follow it. Nothing is guessed: see `columns`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from ringtune.train.columns import Columns, choose_text_columns, shown_name, shown_names, split_exact
from ringtune.train.contract import UsageError
from ringtune.train.shapes import CHOICES

TASK = "multiple_choice"
FLAG = "--text_column_names"
#: Of SWAG (Zellers et al. 2018): the context, and what each of the columns ending0, ending1 ... begins with.
CONTEXT, BEGIN, ENDING = "sent1", "sent2", "ending"
#: Columns of a context, and of a list of choices, that are known by their names.
CONTEXT_NAMES = ("question", "context", "premise", "ctx", "article", "passage")
LIST_NAMES = ("choices", "endings", "options")
_HOW = f"name them: {FLAG} CONTEXT,CHOICE,CHOICE or CONTEXT,LIST or CONTEXT,BEGIN,LIST"


def choose(
    names: Sequence[str], lists: Collection[str], where: str, *, text: str | None, label: str | None, task: str | None
) -> Columns | None:
    """Return the columns of a table of contexts and choices, None for one of something else. **Pure.**

    names, lists: all columns, and those that hold lists. text: ``--text_column_names``. label: the column with the
    label. task: ``--task``; without it a table is one of choices only where it cannot be read as texts with labels.
    Raises UsageError where two readings are possible, and for a table of something else if ``task`` asks for choices.
    """
    if text:
        asked = split_exact(text, names)
        return _asked(asked, lists, label) if task == TASK or set(asked[1:]) & set(lists) else None
    readings = list(_readings(names, lists, label))
    if task != TASK and (len(readings) != 1 or _reads_as_texts(names, where, label)):
        return None
    if len(readings) == 1:
        return readings[0]
    ways = [f"{FLAG} {','.join(map(shown_name, each.text))}" for each in readings]
    if ways:
        raise UsageError(
            where,
            f"which columns hold a context and its choices? It has {shown_names(names)}",
            legal="one reading",
            todo="for example " + " or ".join(ways[:3]),
        )
    raise UsageError(
        f"--task {TASK}",
        f"{where} has no context with choices by names that are known: it has {shown_names(names)}",
        legal=f"columns {CONTEXT}, {BEGIN}, {ENDING}0, {ENDING}1 ..., or {CONTEXT_NAMES[0]} and a list {LIST_NAMES[0]}",
        todo=_HOW,
    )


def _asked(asked: tuple[str, ...], lists: Collection[str], label: str | None) -> Columns:
    """Return the columns that a flag names: context, perhaps what begins each choice, and choices or a list of them."""
    if not all(asked) or len(set(asked)) < len(asked):
        raise UsageError(FLAG, f"{shown_names(asked)}: a name is empty or stands there twice", legal="each column once")
    found = [name for name in asked if name in lists]
    if found:
        if len(found) > 1 or found[0] != asked[-1] or not 2 <= len(asked) <= 3:
            raise UsageError(
                FLAG,
                f"{shown_names(found)} of {shown_names(asked)} hold lists",
                legal="CONTEXT,LIST or CONTEXT,BEGIN,LIST, the list of choices being the last",
            )
        return Columns(asked, label, form=CHOICES, begin=asked[1] if len(asked) == 3 else None)
    begin = BEGIN if BEGIN in asked[1:2] else None
    if len(asked) < 3 + (begin is not None):
        raise UsageError(
            FLAG,
            f"{shown_names(asked)} has {max(0, len(asked) - 1 - (begin is not None))} column(s) of choices",
            legal="a context and two choices or more, or a context and a list of choices",
        )
    return Columns(asked, label, form=CHOICES, begin=begin)


def _readings(names: Sequence[str], lists: Collection[str], label: str | None) -> list[Columns]:
    """Return the ways in which known names say which columns hold a context and choices."""
    endings = tuple(itertools.takewhile(lambda each: each in names, (f"{ENDING}{n}" for n in itertools.count())))
    found = []
    if {CONTEXT, BEGIN} <= set(names) and len(endings) > 1:
        found.append(Columns((CONTEXT, BEGIN, *endings), label, form=CHOICES, begin=BEGIN))
    several = [name for name in LIST_NAMES if name in names and name in lists]
    contexts = [name for name in CONTEXT_NAMES if name in names and name not in (*lists, label)]
    question = CONTEXT_NAMES[0]
    for choices in several:
        if len(contexts) == 2 and question in contexts:  # a text and a question about it, which each choice answers
            other = next(name for name in contexts if name != question)
            found.append(Columns((other, question, choices), label, form=CHOICES, begin=question))
        else:
            found += [Columns((name, choices), label, form=CHOICES) for name in contexts]
    return found


def _reads_as_texts(names: Sequence[str], where: str, label: str | None) -> bool:
    """Return whether a table can be read as one of texts and labels."""
    try:
        choose_text_columns(names, where, asked=None, label=label or "")
    except UsageError:
        return False
    return True
