"""Which columns hold words and their tags, or a text and its entities. Nothing is guessed: see `columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringtune.train.columns import Columns, shown_name, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.shapes import SPANS, WORDS
from ringtune.train.text_names import SINGLES

WORD_NAMES = ("tokens", "words")
TAG_NAMES = ("ner_tags", "tags", "labels")
SPAN_NAMES = ("entities", "spans")
TASK = "token_classification"


def choose(
    names: Sequence[str],
    shapes: Mapping[str, str],
    where: str,
    *,
    text: str | None,
    label: str,
    task: str | None,
) -> Columns | None:
    """Return the columns of a table of words or of texts with entities, None for one of texts and labels. **Pure.**

    names: all columns. shapes: of those that hold lists, as `shapes.shape_of`. text: ``--text_column_names``. label:
    ``--label_column_name``. task: ``--task``. Raises UsageError where two readings are possible, and for a table of
    something else if ``task`` asks for tags.
    """
    readings = [
        Columns((one,), other, form=form)
        for form in (WORDS, SPANS)
        for one in _texts(names, shapes, form, text)
        for other in _labels(names, shapes, form, label)
        if one != other
    ]
    if len(readings) == 1:
        return readings[0]
    if len(readings) > 1:
        ways = [f"--text_column_names {shown_name(each.text[0])} --label_column_name {each.label}" for each in readings]
        raise UsageError(
            where,
            f"which columns hold words and tags, or a text and its entities? It has {shown_names(names)}",
            legal="one reading",
            todo="for example " + " or ".join(ways[:3]),
        )
    if text in names and shapes.get(str(text)) == WORDS:
        raise _no_labels(names, where, "tags", TAG_NAMES)
    if text is None and any(shapes.get(name) == WORDS for name in WORD_NAMES) and label not in names:
        raise _no_labels(names, where, "tags", TAG_NAMES)
    if task == TASK:
        raise UsageError(
            "--task token_classification",
            f"{where} has no list of words with a list of tags, and no text with entities: it has {shown_names(names)}",
            legal=f"columns such as {WORD_NAMES[0]} and {TAG_NAMES[0]}, or text and {SPAN_NAMES[0]}; or a column file",
            todo="name them with --text_column_names and --label_column_name",
        )
    return None


def _texts(names: Sequence[str], shapes: Mapping[str, str], form: str, asked: str | None) -> list[str]:
    wanted = WORDS if form == WORDS else ""
    known = [asked] if asked else WORD_NAMES if form == WORDS else SINGLES
    return [name for name in known if name in names and shapes.get(name, "") == wanted]


def _labels(names: Sequence[str], shapes: Mapping[str, str], form: str, asked: str) -> list[str]:
    if shapes.get(asked) == form:
        return [asked]
    known = TAG_NAMES if form == WORDS else SPAN_NAMES
    return [name for name in known if name in names and shapes.get(name) == form]


def _no_labels(names: Sequence[str], where: str, what: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        where,
        f"there is no list of {what} beside its words; it has {shown_names(names)}",
        legal=f"a column such as {' or '.join(known)}",
        todo="name it with --label_column_name",
    )
