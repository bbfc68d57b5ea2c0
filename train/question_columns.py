"""Which columns hold a question, a context and answers. Nothing is guessed: see `columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringtune.train.columns import Columns, choose_text_columns, require_columns, shown_names
from ringtune.train.contract import UsageError
from ringtune.train.shapes import ANSWERS

TASK = "question_answering"
TEXT_NAMES = ("question", "context")
ANSWER_COLUMN = "answers"


def choose(
    names: Sequence[str],
    shapes: Mapping[str, str],
    where: str,
    *,
    text: str | None,
    label: str,
    task: str | None,
) -> Columns | None:
    """Return the columns of a table of questions, None for one of something else. **Pure.**

    names: all columns. shapes: of those that hold lists or objects, as `shapes.shape_of`. text:
    ``--text_column_names``. label: ``--label_column_name``. task: ``--task``. A table that also has the column of
    labels is one of texts and labels unless ``task`` says otherwise. Raises UsageError for a table of something else if
    it does, and for answers without a question and a context.
    """
    if task not in (None, TASK):
        return None
    found = [name for name in (label, ANSWER_COLUMN) if name in names and shapes.get(name) == ANSWERS]
    if task is None and (not found or (label in names and found[0] != label)):
        return None
    if not found and ANSWER_COLUMN in names:  # lists that are all empty, as far as the shapes say
        found = [ANSWER_COLUMN]
    if not found:
        raise UsageError(
            f"--task {TASK}",
            f"{where} has no answers: it has {shown_names(names)}",
            legal="a column of answers, each with text and answer_start, or a file of SQuAD",
            todo="name it with --label_column_name",
        )
    texts = text_names(names, where, text)
    require_columns(names, texts, where)
    return Columns(texts, found[0], form=ANSWERS)


def text_names(names: Sequence[str], where: str, asked: str | None) -> tuple[str, ...]:
    """Return the columns of question and context. asked: ``--text_column_names``. Raises UsageError. **Pure.**"""
    if asked is None and set(TEXT_NAMES) <= set(names):
        return TEXT_NAMES
    found = choose_text_columns(names, where, asked=asked, label="") if asked else ()
    if len(found) != 2:
        raise UsageError(
            "--text_column_names" if asked else where,
            "answers need the columns of a question and of a context; "
            + (f"{asked} is one" if asked else f"it has {shown_names(names)}"),
            legal="two columns, the question first",
            todo=f"for example --text_column_names {','.join(TEXT_NAMES)}",
        )
    return found


def of_prediction(
    names: Sequence[str],
    shapes: Mapping[str, str],
    lists: frozenset[str],
    where: str,
    *,
    trained: Columns | None,
    text: str | None,
    label: str | None,
) -> Columns:
    """Return the columns that are read of the input of a prediction; without answers where it has none. **Pure.**

    lists: columns that hold lists. trained: the columns of training, None if they are not known. text, label: as the
    user named them. Raises UsageError for a column that is not there.
    """
    texts = trained.text if trained and not text else text_names(names, where, text)
    require_columns(names, texts, where)
    answers = label or (trained.label if trained else None) or ANSWER_COLUMN
    if label is not None:
        require_columns(names, (label,), where)
    # Of lists that are all empty the shape is not known: no question has an answer.
    is_labelled = answers in names and (shapes.get(answers) == ANSWERS or (answers in lists and answers not in shapes))
    return Columns(texts, answers if is_labelled else None, form=ANSWERS)
