"""Exact match and F1 of answers are SQuAD's, for answers that differ in every way that its rules speak of."""

from __future__ import annotations

import random

import pytest
from ringtune.train.task.answer_scores import Judged, best_threshold, exact_and_f1, normalised, values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The  Film", "film"),
        ("a film, an odd film.", "film odd film"),
        ("thea(n)a", "theana"),
        ("it's", "its"),
        ("A-Team", "ateam"),  # punctuation goes first: no article is left
        ("“the” film", "“ ” film"),  # punctuation is that of ASCII
        ("THÉ Ärger", "thé ärger"),
        ("the\u00a0film\tan\nodd", "film odd"),
        ("...", ""),
        ("", ""),
    ],
)
def test_an_answer_is_compared_without_case_articles_and_punctuation(text, found):
    assert normalised(text) == found


@pytest.mark.parametrize(
    ("answer", "truths", "exact", "f1"),
    [
        ("The film!", ["film"], 1, 1),
        ("very good film", ["good film"], 0, 0.8),
        ("good good film", ["good film film"], 0, 2 / 3),
        ("odd", ["film", "odd plot"], 0, 2 / 3),
        ("odd plot", ["film", "odd plot"], 1, 1),
        ("", [], 1, 1),
        ("film", [], 0, 0),
        ("", ["film"], 0, 0),
        ("the", [], 1, 1),
        ("a", ["the", "film"], 0, 0),
        ("a", ["the"], 1, 1),
    ],
)
def test_the_best_of_several_true_answers_counts(answer, truths, exact, f1):
    assert exact_and_f1(answer, truths) == pytest.approx((exact, f1))


PARTS = ["the", "The", "a", "an", "film", "Film,", "odd", "“odd”", "it's", "naïve", "-", "  ", "plot.", "北京", "plot"]


def mutations(seed: int, num_rows: int) -> list[tuple[str, list[str], float]]:
    """Give an answer, true answers and a score of no answer for rows drawn at random."""
    draw = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(draw.choices(PARTS, k=draw.randint(1, most)))

    rows = []
    for number in range(num_rows):
        truths = [f"{words(3)} film" for _ in range(draw.randint(1, 3))] if draw.random() < 0.7 else []
        answer = draw.choice(
            [f"{words(3)} odd", f"The {draw.choice(truths)}." if truths else "plot", f"the {words(2)} film"]
        )
        rows.append((answer, truths, round(draw.uniform(-4, 9) - 5 * bool(truths), 4) + number / 1e6))
    return rows


#: Of `mutations(seed, 400)`, by squad_evaluate of transformers 4.44.2 (data/metrics/squad_metrics.py), whose rules are
#: those of SQuAD's script; in per cent. No answer where its score is above 0.
NAMES = ("exact_match", "f1", "has_answer_exact_match", "has_answer_f1", "no_answer_f1", "best_f1", "best_f1_threshold")
OFFICIAL = {
    1: (
        41.25,
        54.51369047619048,
        30.970149253731343,
        50.766702203269354,
        62.121212121212125,
        58.511309523809516,
        3.681328,
    ),
    2: (40.0, 53.54642857142857, 26.97841726618705, 46.46968139773898, 69.67213114754098, 58.14166666666671, 3.872661),
    3: (40.75, 52.05773809523808, 29.82456140350877, 45.69507101086051, 67.82608695652173, 56.4839285714286, 3.957121),
}


def judged(seed: int) -> list[Judged]:
    found = []
    for answer, truths, margin in mutations(seed, 400):
        of_span = exact_and_f1(answer, truths)
        given = exact_and_f1("", truths) if margin > 0 else of_span
        found.append(Judged(bool(truths), *given, margin=margin, span_f1=of_span[1]))
    return found


@pytest.mark.parametrize("seed", OFFICIAL)
def test_scores_are_those_of_the_official_script(seed):
    found = values(judged(seed), fits=True)
    assert found["no_answer_exact_match"] == found["no_answer_f1"]
    percent = [found[name] * (1 if name.endswith("threshold") else 100) for name in NAMES]
    assert percent == pytest.approx(OFFICIAL[seed], rel=1e-12)


def test_what_no_row_has_is_not_reported():
    answered = [each for each in judged(1) if each.has_answer]
    assert set(values(answered, fits=False)) == {"exact_match", "f1"}
    unanswered = values([each for each in judged(1) if not each.has_answer], fits=False)
    assert unanswered["has_answer_f1"] != unanswered["has_answer_f1"]  # not defined


def test_rows_with_the_same_margin_are_answered_or_not_together():
    same = [Judged(True, 0, 0, margin=1.0, span_f1=1.0), Judged(False, 0, 0, margin=1.0, span_f1=0.0)]
    assert best_threshold(same) == (0.5, pytest.approx(1.0)) and best_threshold(same)[1] < 1.0
    assert best_threshold([*same, Judged(True, 0, 0, margin=1.0, span_f1=1.0)]) == (2 / 3, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_the_best_of_all(seed):
    rows = judged(seed)

    def f1_at(threshold: float) -> float:
        right = (float(not each.has_answer) if each.margin > threshold else each.span_f1 for each in rows)
        return sum(right) / len(rows)

    best, threshold = best_threshold(rows)
    assert f1_at(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(map(f1_at, [-99.0, *(each.margin for each in rows)])))


def test_a_row_without_a_span_is_never_answered():
    rows = [Judged(False, 1, 1, margin=float("inf"), span_f1=0.0), Judged(True, 1, 1, margin=-2.0, span_f1=1.0)]
    assert best_threshold(rows) == (1.0, -2.0)
