"""Rows of words and of texts with entities are read from every format alike, or refused by file and line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tagged
from preparing import load, train
from ringtune.train import config as settings_module
from ringtune.train.contract import UsageError
from ringtune.train.task import tags

WORDS = '{"tokens": ["the", "film"], "ner_tags": ["B-THING", "I-THING"]}\n'
TEXT = '{"text": "the film", "entities": [{"start": 0, "end": 8, "label": "THING"}]}\n'
COLUMNS = "the DT B-THING\nfilm NN I-THING\n\n"


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def text(entities: object, words: str = "the film is odd") -> str:
    return TEXT + lines({"text": words, "entities": entities})


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        (
            "t.jsonl",
            WORDS + lines({"tokens": ["a"], "ner_tags": ["O", "O"]}),
            {},
            "t.jsonl:2: there are 1 words and 2 tags",
        ),
        ("t.jsonl", WORDS + lines({"tokens": ["a"], "ner_tags": None}), {}, "t.jsonl:2: there are no tags in column"),
        ("t.jsonl", WORDS + lines({"tokens": ["a"], "ner_tags": [["O"]]}), {}, "t.jsonl:2: column 'ner_tags' holds"),
        (
            "t.jsonl",
            WORDS + lines({"tokens": "a film", "ner_tags": ["O"]}),
            {},
            "t.jsonl:2: column 'tokens' holds 'a film'",
        ),
        (
            "t.jsonl",
            WORDS + lines({"tokens": ["a", 3], "ner_tags": ["O", "O"]}),
            {},
            "t.jsonl:2: column 'tokens' holds",
        ),
        (
            "t.jsonl",
            WORDS + lines({"tokens": [], "ner_tags": []}),
            {},
            "t.jsonl:2: the list of words in column 'tokens' is",
        ),
        ("t.jsonl", WORDS + lines({"tokens": ["\ud800"], "ner_tags": ["O"]}), {}, "t.jsonl:2: half a character"),
        ("t.jsonl", WORDS + lines({"tokens": ["a"], "ner_tags": ["ORG"]}), {}, "t.jsonl:2: the tag 'ORG' in column"),
        ("t.jsonl", WORDS + lines({"tokens": ["a"], "ner_tags": [7]}), {}, "t.jsonl:2: the tag '7' in column"),
        ("t.jsonl", WORDS + '{"tokens": ["a"\n', {}, "t.jsonl:2: it is not JSON"),
        ("t.jsonl", text([[0, 8, "A"], [4, 15, "B"]]), {}, "t.jsonl:2: entities overlap: 0:8 (A) and 4:15 (B)"),
        ("t.jsonl", text([[0, 16, "A"]]), {}, "t.jsonl:2: the entity 0:16 (A) is out of range: the text has 15"),
        ("t.jsonl", text([[-1, 3, "A"]]), {}, "t.jsonl:2: the entity -1:3 (A) is out of range"),
        ("t.jsonl", text([[3, 3, "A"]]), {}, "t.jsonl:2: the entity 3:3 (A) is out of range"),
        ("t.jsonl", text([[3, 4, "A"]]), {}, "t.jsonl:2: there is no word in the entity 3:4 (A)"),
        ("t.jsonl", text([[0, 1, "A"], [1, 3, "B"]]), {}, "t.jsonl:2: two entities are in one word, 1:3 (B)"),
        ("t.jsonl", text([[0, 3, ""]]), {}, "t.jsonl:2: the entity 0:3 has the label ''"),
        ("t.jsonl", text([[0.0, 3, "A"]]), {}, "t.jsonl:2: [0.0, 3, 'A'] is no entity: it needs start, end and label"),
        ("t.jsonl", text([{"start": 0, "label": "A"}]), {}, "is no entity: it needs start, end and label"),
        ("t.jsonl", text({"start": 0}), {}, "t.jsonl:2: column 'entities' holds {'start': 0}, not a list of entities"),
        ("t.jsonl", text(None), {}, "t.jsonl:2: there are no tags in column 'entities'"),
        ("t.conll", COLUMNS + "a DT\n", {}, "t.conll:4: line 4 has 2 columns, the first one 3"),
        ("t.conll", COLUMNS + "x O\nthe DT O\n", {}, "t.conll:4: line 4 has 2 columns, the first one 3"),
        ("t.conll", COLUMNS + "a DT I\n", {}, "t.conll:4: the tag 'I' in column 'tags' is none"),
        ("t.conll", b"b\xe4d NN O\nthe DT B-X\n", {}, "t.conll:1: byte 0xe4 in column 'words' is not UTF-8"),
        (
            "t.conll",
            b"John B-M\xfcller\n\nA B-M\xe4ller\n",
            {},
            "t.conll:1: the tag 'B-M\\udcfcller' in column 'tags' is not UTF-8",
        ),
        (
            "t.jsonl",
            WORDS + lines({"tokens": ["a"], "ner_tags": ["B-\ud800\U0001f600"]}),
            {},
            "t.jsonl:2: the tag 'B-\\ud800\U0001f600' in column 'ner_tags' is not UTF-8",
        ),
        ("t.jsonl", text([[0, 3, "\ud800\U0001f600"]]), {}, "the entity 0:3 has the label '\\ud800"),
        ("t.conll", "-DOCSTART- O\n\n", {}, "t.conll: there are no rows in it"),
        ("t.conll", "film\nplot\n", {}, "t.conll: there is no list of tags beside its words; it has words"),
        ("t.txt", COLUMNS, {}, "the ending .txt is not known"),
        ("t.jsonl", WORDS + lines({"tokens": ["a"], "ner_tags": [7]}), {}, "numbers need names: write the tags"),
        ("t.jsonl", WORDS, {"label_column_name": "ner_tag"}, "there is no column 'ner_tag'; it has tokens, ner_tags;"),
        ("t.jsonl", TEXT, {"label_column_name": "entity"}, "there is no column 'entity'; it has text, entities;"),
        ("t.jsonl", TEXT, {"label_column_name": "text", "task": "token_classification"}, "column text of "),
        (
            "t.csv",
            "text,label\na,b\n",
            {"task": "token_classification"},
            "t.csv has no list of words with a list of tags",
        ),
        ("t.jsonl", WORDS, {"regression": True}, "--regression: "),
        ("t.csv", "text,label\na,b\nc,d\n", {"tag_scheme": "iob1"}, "--tag_scheme: "),
        ("t.jsonl", lines({"tokens": ["a"], "words": ["b"], "tags": ["B-X"]}), {}, "which columns hold words and tags"),
        (
            "t.jsonl",
            lines({"tokens": ["a"], "tags": ["B-X"], "labels": ["O"]}),
            {},
            "which columns hold words and tags",
        ),
        (
            "t.jsonl",
            lines({"tokens": ["a"], "pos": ["NN"]}),
            {},
            "there is no list of tags beside its words; it has tokens",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, name, content, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content, name=name, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_tag_that_the_training_rows_do_not_have_is_refused_by_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"dev_t.jsonl:2: the tag 'I-X' in column 'ner_tags' does not occur in the tr"):
        load(tmp_path, WORDS, WORDS + lines({"tokens": ["a", "b"], "ner_tags": ["O", "I-X"]}), name="t.jsonl")


def content_of(found) -> list[list[int]]:
    """Return what a model reads and is to learn."""
    return [found.train.token_columns[name].tolist() for name in ("input_ids", "labels", "word")]


def test_every_format_gives_the_same_features(tmp_path):
    words = tagged.write_words(tmp_path / "t.jsonl", 30, 1)
    rows = [json.loads(line) for line in words.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    tagged.write_columns(tmp_path / "t.conll", 30, 1, tags.BIOES)
    (tmp_path / "t.txt").write_text((tmp_path / "t.conll").read_text().replace(" ", "\t"))
    tagged.write_columns(tmp_path / "t.iob", 30, 1, tags.IOB1)
    first = train(tmp_path, words)
    assert first.report[0].endswith(
        "words: column tokens; tags: column ner_tags, 2 types of entities, IOB2; not read: id"
    )
    for name, scheme in (("t.parquet", "iob2"), ("t.conll", "bioes"), ("t.iob", "iob1")):
        found = train(tmp_path, tmp_path / name)
        assert content_of(found) == content_of(first) and found.task.scheme == scheme
    asked = train(tmp_path, tmp_path / "t.txt", task="token_classification", label_column_name="3")
    assert content_of(asked) == content_of(first)
    spans = train(tmp_path, tagged.write_spans(tmp_path / "s.jsonl", 30, 1))
    assert content_of(spans) == content_of(first) and spans.task.columns.form == "spans"


def lists_of(inner: pa.DataType) -> pa.Array:
    """Return two lists of texts, of two each."""
    texts = pa.array(["the", "film", "plot", "the"])
    texts = texts.dictionary_encode() if pa.types.is_dictionary(inner) else texts.cast(inner)
    return pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), texts)


@pytest.mark.parametrize("kind", ["string_view", "large_string", "dictionary", "fixed_size_list"])
def test_lists_of_words_of_every_kind_that_arrow_has_are_words(tmp_path, kind):
    inner = {"string_view": pa.string_view(), "dictionary": pa.dictionary(pa.int32(), pa.string())}
    tokens = lists_of(inner.get(kind, pa.large_string()))
    if kind == "fixed_size_list":
        tokens = pa.FixedSizeListArray.from_arrays(tokens.flatten(), 2)
    tags_column = pa.array([["O", "B-X"], ["B-Y", "O"]])
    table = pa.table({"tokens": tokens, "tags": tags_column})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as stream:
        stream.write_table(table)
    pq.write_table(table, tmp_path / "t.parquet")
    for name in ("t.arrow", "t.parquet"):
        found = train(tmp_path, tmp_path / name)
        assert found.task.types == ("X", "Y") and found.train.num_features == 2


def test_texts_with_entities_and_a_label_of_their_own_are_classified_by_it(tmp_path):
    rows = [{**json.loads(TEXT), "intent": intent, "mood": 1} for intent in ("ask", "tell")]
    found = train(tmp_path, tagged_lines(tmp_path / "t.jsonl", rows), label_column_name="intent")
    assert found.task.kind == "classification" and found.task.classes == ("ask", "tell")
    with pytest.raises(UsageError, match="there is no column 'moods'"):
        train(tmp_path, tmp_path / "t.jsonl", label_column_name="intent,moods")


def tagged_lines(path, rows):
    path.write_text(lines(*rows))
    return path


def test_slices_of_a_table_are_those_of_its_column(tmp_path):
    rows = [{**json.loads(WORDS), "group": group} for group in "aab"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = train(tmp_path, tmp_path / "t.parquet", validation_file=str(tmp_path / "t.parquet"), slice_by="group")
    (column,) = found.slices[""]
    assert column.values == ("a", "b") and column.codes.tolist() == [0, 0, 1]


def test_declared_classes_of_a_data_set_keep_their_names_and_order(tmp_path):
    import datasets

    names = ["O", "B-B", "I-B", "B-A", "I-A"]
    kinds = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        "pos_tags": datasets.List(datasets.ClassLabel(names=["NN"])),
    }
    rows = {"tokens": [["the", "film"]], "ner_tags": [[0, 3]], "pos_tags": [[0, 0]]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).save_to_disk(str(tmp_path / "set"))
    found = train(tmp_path, tmp_path / "set")
    assert found.task.classes == tuple(names)
    assert found.train.token_columns["labels"].tolist() == [-100, 0, 3, -100]


def test_windows_and_words_without_a_piece_are_counted_and_lose_nothing(tmp_path):
    found = train(tmp_path, tagged.write_words(tmp_path / "t.jsonl", 30, 1))
    report = "\n".join(found.report)
    rows = list(tagged.rows(30, 1))
    num_blank = sum(words.count("\u200d") for words, _ in rows)
    assert f"{num_blank} words give no piece" in report and "rows are longer than --max_seq_length" in report
    assert " are cut" not in report and "training rows as well" not in report
    features = found.train
    assert features.num_terms.sum() == sum(len(words) for words, _ in rows) - num_blank
    assert features.lengths.max() <= 16 and features.num_features > 30
    assert np.count_nonzero(features.token_columns["labels"] != -100) == features.num_terms.sum()


def test_entities_within_a_word_are_widened_and_counted(tmp_path):
    found = load(tmp_path, text([[5, 8, "A"]]), name="t.jsonl")
    assert any("1 entities begin or end within a word" in line for line in found.report)
    found = load(tmp_path, text([[3, 8, "A"]]), name="t.jsonl")  # a blank more is no word
    assert not any("within a word" in line for line in found.report)


def test_new_settings_do_not_change_the_digest_of_runs_without_them(tmp_path):
    """A checkpoint of before is gone on from: the digest of its rows must be what it was."""
    path = tmp_path / "t.csv"
    path.write_text("text,label\nfine,up\nbad,down\n")
    plain = settings_module.TrainConfig("m", train_file=str(path))
    from ringtune.train import data

    sources = data.open_splits(plain)
    assert not {"task", "tag_scheme"} & set(data._SETTINGS)
    assert data.digest(plain, sources) == "29636c2a38f61d698a656d2187fa2cff94069db8677f5f728e8d1f2b1049a4db"
