"""A key that repeats is refused wherever it stands in a row, and nothing else is refused with it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preparing import load, train
from ringtune.train.contract import UsageError
from ringtune.train.repeated_keys import Twice, with_keys_once

GOOD = '{"text": "Ann", "entities": [{"start": 0, "end": 3, "label": "PER"}]}'
TWICE = '{"text": "Ann", "entities": [{"start": 0, "end": 1, "end": 3, "label": "PER"}]}'
VALUES = st.recursive(
    st.integers(0, 2), lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from("ab"), inner))
)


def parse(text: str):
    return json.loads(text, object_pairs_hook=with_keys_once)


def written(value) -> tuple[str, bool]:
    """Return a value as JSON, a list of tuples as an object, and whether a key repeats in it."""
    if not isinstance(value, list):
        return str(value), False
    if value and all(isinstance(each, tuple) for each in value):
        names = [name for name, _ in value]
        inner = [written(each) for _, each in value]
        text = ", ".join(f'"{name}": {each}' for name, (each, _) in zip(names, inner, strict=True))
        return f"{{{text}}}", len(set(names)) < len(names) or any(twice for _, twice in inner)
    inner = [written(each) for each in value]
    return f"[{', '.join(each for each, _ in inner)}]", any(twice for _, twice in inner)


@given(st.lists(st.tuples(st.sampled_from("ab"), VALUES), min_size=1, max_size=3))
def test_a_key_that_repeats_is_found_at_any_depth(pairs):
    text, twice = written(pairs)
    found = parse(text)
    assert isinstance(found, Twice) == twice and found == json.loads(text)


def test_the_key_is_named_and_those_of_the_object_itself_are_told_from_those_within():
    found = parse('{"a": [[{"b": 1, "": 2, "": 3}]]}')
    assert found.key == "" and found.own == () and found["a"][0][0].own == ("",)
    assert parse("[" * 50 + '{"a": ' + "[" * 400 + "]" * 400 + "}" + "]" * 50) is not None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", f"{GOOD}\n{TWICE}\n"),
        ("t.json", f"[{GOOD},\n{TWICE}]"),
        ("t.json", f'{{"version": 1, "data": [{GOOD},\n{TWICE}]}}'),
    ],
)
def test_a_row_with_a_key_twice_in_an_entity_is_refused(tmp_path, name, content):
    with pytest.raises(UsageError, match="2: it has the key 'end' twice"):
        load(tmp_path, content, name=name)


@pytest.mark.parametrize("settings", [{}, {"data_field": "data"}])
def test_a_field_of_rows_that_stands_twice_is_refused_and_another_one_is_not_read(tmp_path, settings):
    with pytest.raises(UsageError, match="t.json: it has the key 'data' twice; each key once"):
        load(tmp_path, f'{{"data": [{GOOD}], "data": [{GOOD}]}}', name="t.json", **settings)
    found = load(tmp_path, f'{{"version": 1, "version": 2, "data": [{GOOD}]}}', name="t.json", **settings)
    assert found.train.num_features == 1


def test_of_a_file_of_squad_only_the_question_is_refused(tmp_path):
    from ringtune.train.json_rows import JsonFile

    answer = '{"text": "good", "answer_start": 2}'
    questions = [f'{{"id": "q{number}", "question": "good", "answers": [{answer}]}}' for number in (1, 2)]
    questions[1] = questions[1].replace('"text"', '"text": "a", "text"')
    paragraph = f'{{"context": "a good film", "qas": [{", ".join(questions)}]}}'
    path = tmp_path / "t.json"
    path.write_text(f'{{"data": [{{"title": "t", "paragraphs": [{paragraph}]}}]}}')
    errors = [error for _, _, error in JsonFile(path, "json", "t.json", None).rows()]
    assert errors == [None, "question 'q2': it, or what it is in, has the key 'text' twice"]
    with pytest.raises(UsageError, match="t.json: row 2: question 'q2': it, or what it is in, has the key 'text' tw"):
        train(tmp_path, path)
