"""The words of entities are found as the plain rule finds them: every word that has a character of the entity."""

from __future__ import annotations

import itertools
import time

from hypothesis import example, given
from hypothesis import strategies as st
from ringtune.train import words
from ringtune.train.word_rows import Wrong, _shown, _tags_of

TEXTS = st.text(st.sampled_from("ab .\u00a0-中"), min_size=1, max_size=16)
Span = tuple[int, int, str]


def plain_tags(text: str, spans: list[Span]) -> tuple[list[str], int]:
    """Return what `_tags_of` does, looking at all words for each entity."""
    bounds = words.find(text)
    tags, widened = ["O"] * len(bounds), 0
    for start, end, label in spans:
        inside = [word for word, (first, behind) in enumerate(bounds) if first < end and behind > start]
        if not inside:
            raise Wrong(f"there is no word in the entity {_shown((start, end, label))}")
        if tags[inside[0]] != "O":
            raise Wrong(f"two entities are in one word, {_shown((start, end, label))} being the second")
        for word in inside:
            tags[word] = f"{'I' if word > inside[0] else 'B'}-{label}"
        spare = text[start:end]
        wanted = (end - len(spare.lstrip()), start + len(spare.rstrip()))
        widened += (bounds[inside[0]][0], bounds[inside[-1]][1]) != wanted
    return tags, widened


def outcome(rule, text: str, spans: list[Span]):
    try:
        return rule(text, spans)
    except Wrong as wrong:
        return str(wrong)


@given(TEXTS, st.lists(st.integers(0, 16), max_size=10))
@example("ab", [0, 1, 1, 2])
@example("a  b", [1, 3])
def test_tags_are_those_of_the_plain_rule(text, places):
    """Spans are sorted and do not overlap, as `_spans` gives them."""
    places = sorted(min(each, len(text)) for each in places)
    pairs = list(itertools.pairwise(places))[::2] if len(places) % 3 else list(itertools.pairwise(places))
    spans = [(start, end, "XY"[number % 2]) for number, (start, end) in enumerate(pairs) if start < end]
    assert outcome(_tags_of, text, spans) == outcome(plain_tags, text, spans)


def test_the_time_grows_with_the_row():
    text = "word " * 16_000
    start = time.process_time()
    tags, _ = _tags_of(text, [(each, each + 4, "X") for each in range(0, len(text), 5)])
    assert time.process_time() - start < 2 and tags == ["B-X"] * 16_000  # 8 s looking at each word for each entity
