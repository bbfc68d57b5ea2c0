"""Files of SQuAD (Rajpurkar et al. 2016 and 2018): articles of paragraphs of questions; a row is a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringtune.train.repeated_keys import Twice

#: What stands for a question that is none: the columns are those of others.
_BROKEN: Mapping[str, Any] = {"question": None, "context": None, "answers": {"text": [], "answer_start": []}}
_OF_QUESTION = ("id", "question", "answers", "is_impossible")


def holds_articles(value: Any) -> bool:
    """Return whether a list of objects is one of articles, by the first of them. **Pure.**"""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and _is_list(value[0], "paragraphs")


def questions(articles: list[Any]) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Give the questions of articles with context, title and answers, and what is wrong with each, None if nothing is.

    ``is_impossible`` means an empty list of answers; its ``plausible_answers`` are not read.
    """
    for number, article in enumerate(articles, start=1):
        if not isinstance(article, dict) or not _is_list(article, "paragraphs"):
            yield _BROKEN, f"article {number} has no list of paragraphs"
            continue
        for place, paragraph in enumerate(article["paragraphs"], start=1):
            if not isinstance(paragraph, dict) or not _is_list(paragraph, "qas"):
                yield _BROKEN, f"paragraph {place} of article {number} has no list of questions (qas)"
                continue
            for each in paragraph["qas"]:
                yield _row(each, paragraph, article)


def _row(question: Any, paragraph: Mapping[str, Any], article: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    if not isinstance(question, dict):
        return dict(_BROKEN), f"the question {repr(question)[:60]} is no JSON object"
    keys = [question.key] if isinstance(question, Twice) else []  # also within it; of what it is in, not in the others
    keys += [key for each in (paragraph, article) if isinstance(each, Twice) for key in each.own]
    if keys:
        wrong = f"it, or what it is in, has the key {keys[0][:40]!r} twice"
        return dict(_BROKEN), f"question {repr(question.get('id'))[:60]}: {wrong}"
    row = {"title": article.get("title"), "context": paragraph.get("context")}
    row |= {name: question[name] for name in _OF_QUESTION if name in question}
    if row.get("is_impossible") is not True:
        return row, None
    if row.get("answers"):
        return row, f"question {repr(row.get('id'))[:60]}: it has answers and is_impossible"
    return {**row, "answers": []}, None


def _is_list(value: Mapping[str, Any], name: str) -> bool:
    return isinstance(value.get(name), list)
