"""No word is lost where a row is cut into windows, and each is predicted once, where it has most context."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import words


@st.composite
def long_rows(draw):
    """First pieces of words, tokens of the row, and room: words of 1 to 9 tokens, and tokens before the first word."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=40))
    before = draw(st.integers(0, 2))
    first = before + np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return first, before + sum(sizes), draw(st.integers(3, 30))


@given(long_rows())
def test_each_word_is_predicted_once_and_its_first_piece_is_in_the_window(row):
    first, num_tokens, room = row
    found = words.windows(first, num_tokens, room)
    assert [word for each in found for word in each.words] == list(range(len(first)))
    for each in found:
        assert 0 < each.stop - each.start <= room
        assert all(each.start <= first[word] < each.stop for word in each.words)
    assert np.all(np.diff([each.stop for each in found]) > 0)  # none is read for nothing
    if num_tokens <= room:
        assert [(each.start, each.stop) for each in found] == [(0, num_tokens)]


@given(long_rows())
def test_a_word_is_predicted_where_it_has_most_context(row):
    """The nearer of the two ends of the window is as far as in any other window; an end of the row is none."""
    first, num_tokens, room = row
    found = words.windows(first, num_tokens, room)
    ends = np.append(first[1:], num_tokens)
    begins = np.append(0 if first[0] <= room // words.OVERLAP else first[0], first[1:])

    def context(window, word):
        left = np.inf if window.start == begins[0] else begins[word] - window.start
        right = np.inf if window.stop >= num_tokens else window.stop - ends[word]
        return min(left, right)

    for window in found:
        for word in window.words:
            holding = [each for each in found if each.start <= begins[word] and ends[word] <= each.stop]
            if window in holding:
                assert context(window, word) == max(context(each, word) for each in holding)


def test_neighbouring_windows_share_up_to_a_quarter():
    found = words.windows(np.arange(100), 100, 20)
    shared = [one.stop - other.start for one, other in itertools.pairwise(found)]
    assert set(shared) == {5} and found[0].words == range(0, 18)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("U.N. in 2020!", ["U", ".", "N", ".", "in", "2020", "!"]),
        ("  don't\t", ["don", "'", "t"]),
        ("cafe\u0301 हिन्दी", ["cafe\u0301", "हिन्दी"]),
        ("北京a市", ["北", "京", "a", "市"]),
        ("", []),
    ],
)
def test_words_of_a_text(text, expected):
    assert [text[start:stop] for start, stop in words.find(text)] == expected


def test_first_pieces_by_characters():
    text, bounds = words.joined(["New York", "", "\u200d", "is", "a.b"])
    assert text == "New York  \u200d is a.b" and [text[a:b] for a, b in bounds] == [
        "New York",
        "",
        "\u200d",
        "is",
        "a.b",
    ]
    # Pieces: New, York, " is" with its blank (SentencePiece), "a", ".b".
    offsets = [(0, 3), (4, 8), (11, 14), (15, 16), (16, 18)]
    assert words.first_pieces(text, bounds, offsets).tolist() == [0, -1, -1, 2, 3]
    # A piece of two words is the first one's.
    assert words.first_pieces("ab).", [(0, 2), (2, 3), (3, 4)], [(0, 2), (2, 4)]).tolist() == [0, 1, -1]
