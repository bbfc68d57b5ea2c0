"""Scores of answers by SQuAD's rules: exact match and F1 of words, the best over several true answers.

The rules are those of the evaluation script of SQuAD 2.0 (Rajpurkar et al. 2018, "Know What You Don't Know"); for rows
that all have an answer they are those of 1.1, but for true answers of nothing but articles and punctuation, which are
as good as none.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Return an answer in lower case, without ASCII punctuation and articles, a blank between words. **Pure.**"""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_and_f1(answer: str, truths: Sequence[str]) -> tuple[float, float]:
    """Return exact match, 0 or 1, and F1 of an answer: the best over the true answers; none: no answer. **Pure.**"""
    given = normalised(answer)
    known = [each for each in map(normalised, truths) if each] or [""]
    return float(given in known), max(_f1(given.split(), each.split()) for each in known)


def _f1(given: list[str], true: list[str]) -> float:
    if not given or not true:
        return float(given == true)
    num_same = sum((Counter(given) & Counter(true)).values())
    if not num_same:
        return 0.0
    precision, recall = num_same / len(given), num_same / len(true)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class Judged:
    """How good the answer to a row is."""

    has_answer: bool
    exact: float  # of the answer that is given
    f1: float
    margin: float  # by how much no answer beats the best span
    span_f1: float  # of the best span, given or not


def values(rows: Sequence[Judged], *, fits: bool) -> dict[str, float]:
    """Return exact_match and f1 of rows; where some have no answer, also by that. **Pure.**

    fits: also the best F1 that any threshold for no answer gives, and the threshold.
    """
    found = _means(rows)
    by_kind = {"has_answer": [each for each in rows if each.has_answer]}
    by_kind["no_answer"] = [each for each in rows if not each.has_answer]
    if by_kind["no_answer"]:
        for kind, several in by_kind.items():
            found |= {f"{kind}_{name}": value for name, value in _means(several).items()}
    if fits:
        found["best_f1"], found["best_f1_threshold"] = best_threshold(rows)
    return found


def _means(rows: Sequence[Judged]) -> dict[str, float]:
    if not rows:
        return {"exact_match": math.nan, "f1": math.nan}
    # fsum rounds once, whatever the order.
    return {
        "exact_match": math.fsum(each.exact for each in rows) / len(rows),
        "f1": math.fsum(each.f1 for each in rows) / len(rows),
    }


def best_threshold(rows: Sequence[Judged]) -> tuple[float, float]:
    """Return the best F1 over all thresholds, and the lowest threshold that gives it. **Pure.**

    A row is given no answer where that beats its best span by more than the threshold. As the script of SQuAD 2.0, but
    rows with the same margin are all answered or none, and a span of nothing but articles is as good as no answer here,
    too.
    """
    in_order = sorted((each for each in rows if each.margin < math.inf), key=lambda each: each.margin)
    total, best, num_answered = 0.0, 0.0, 0
    for number, row in enumerate(in_order, start=1):
        total += row.span_f1 - (not row.has_answer)
        is_last = number == len(in_order) or in_order[number].margin > row.margin
        if is_last and total > best:
            best, num_answered = total, number
    answered = in_order[:num_answered]
    threshold = answered[-1].margin if answered else 0.0
    if in_order and not answered:
        threshold = math.nextafter(in_order[0].margin, -math.inf)
    right = (each.span_f1 if each.margin <= threshold else float(not each.has_answer) for each in rows)
    return math.fsum(right) / len(rows), threshold
