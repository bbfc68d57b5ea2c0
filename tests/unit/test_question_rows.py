"""Questions are read from every format alike, or refused by file and line, or number and id."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import questions
from preparing import load, train
from ringtune.train.contract import UsageError
from ringtune.train.task.passages import FIRST, LAST, NULL, PLACE

GOOD = {
    "id": "q1",
    "question": "good film",
    "context": "a good film",
    "answers": {"text": ["good"], "answer_start": [2]},
}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(**changes: object) -> str:
    """Return a good row and one with changes, whose id is q2."""
    return lines(GOOD, {**GOOD, "id": "q2", **changes})


def answer(text: object, start: object, context: str = "the film is a film") -> str:
    return row(context=context, answers={"text": [text], "answer_start": [start]})


def squad(question: object = None, **paragraph: object) -> str:
    """Return a file of SQuAD with a good question and another one."""
    qas = [{"id": "q1", "question": "good", "answers": [{"text": "good", "answer_start": 2}]}]
    found = {"context": "a good film", "qas": qas + ([question] if question is not None else []), **paragraph}
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [found]}]})


Q2 = "question 'q2': "


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        (
            "t.jsonl",
            answer("is", 8),
            {},
            f"t.jsonl:2: {Q2}the answer 'is' does not stand at character 8 of the context, ",
        ),
        ("t.jsonl", answer("is", 8), {}, "where ' i' is; it stands at 9"),
        ("t.jsonl", answer("film", 5), {}, "it stands there several times"),
        ("t.jsonl", answer("\ud800", 2, "a \ud800 b"), {}, "half a character, \\ud800, in column 'text' is not UTF-8"),
        ("t.jsonl", row(is_impossible=True), {}, "it has is_impossible, and answers in column 'answers'"),
        ("t.jsonl", answer("plot", 5), {}, "it stands nowhere in it"),
        ("t.jsonl", answer("film", 99), {}, "at character 99 of the context, outside of it; it stands there several"),
        ("t.jsonl", answer("film", -4), {}, "at character -4 of the context, outside of it"),
        ("t.jsonl", answer("film", -14), {}, "at character -14 of the context, outside of it"),  # film, from behind
        ("t.jsonl", answer("film", "4"), {}, f"t.jsonl:2: {Q2}the answer 'film' starts at '4', not at a number"),
        ("t.jsonl", answer("film", None), {}, f"t.jsonl:2: {Q2}the answer 'film' starts at None, not at a number"),
        ("t.jsonl", answer("", 4), {}, f"t.jsonl:2: {Q2}the answer '' is no text; a question without an answer has an"),
        ("t.jsonl", answer(4, 4), {}, f"t.jsonl:2: {Q2}the answer 4 is no text"),
        ("t.jsonl", row(answers={"text": ["good"], "answer_start": [2, 3]}), {}, "are no lists of one length"),
        ("t.jsonl", row(answers={"text": "good", "answer_start": 2}), {}, "are no lists of one length"),
        (
            "t.jsonl",
            row(answers=["good"]),
            {},
            f"t.jsonl:2: {Q2}column 'answers' holds ['good'], not answers: each needs",
        ),
        ("t.jsonl", row(answers="good"), {}, f"t.jsonl:2: {Q2}column 'answers' holds 'good', not answers"),
        ("t.jsonl", row(answers=None), {}, "t.jsonl:2: there are no answers in column 'answers'; answers, or an empty"),
        ("t.jsonl", row(context=None), {}, "t.jsonl:2: there is no text in column 'context'"),
        ("t.jsonl", row(question=7), {}, "t.jsonl:2: column 'question' holds 7, not text"),
        ("t.jsonl", row(question="\ud800"), {}, "t.jsonl:2: half a character"),
        ("t.jsonl", lines(GOOD) + '{"question": \n', {}, "t.jsonl:2: it is not JSON"),
        (
            "t.jsonl",
            lines({**GOOD, "answers": []}),
            {"task": "question_answering"},
            "no question has an answer in column",
        ),
        (
            "t.jsonl",
            lines({"answers": GOOD["answers"], "q": "a", "c": "b"}),
            {},
            "need the columns of a question and of a",
        ),
        ("t.jsonl", lines(GOOD), {"text_column_names": "context"}, "two columns, the question first"),
        ("t.jsonl", lines(GOOD), {"text_column_names": "question,passage"}, "there is no column 'passage'"),
        ("t.jsonl", lines(GOOD), {"label_column_name": "answer"}, "there is no column 'answer'"),
        ("t.jsonl", lines(GOOD), {"label_column_name": "id", "task": "question_answering"}, "column id of "),
        ("t.jsonl", answer("分", 5, "a 分 b"), {}, "the answer '分' does not stand at character 5"),
        ("t.jsonl", lines(GOOD), {"regression": True}, "--regression: "),
        ("t.jsonl", lines(GOOD), {"tag_scheme": "iob2"}, "--tag_scheme: "),
        ("t.jsonl", lines(GOOD), {"label_separator": ";"}, "--label_separator: "),
        ("t.jsonl", lines(GOOD), {"doc_stride": 13}, "--doc_stride: 13 of 13 tokens are shared: no window is new"),
        ("t.csv", "text,label\na,b\nc,d\n", {"doc_stride": 4}, "--doc_stride: "),
        ("t.csv", "text,label\na,b\n", {"task": "question_answering"}, "t.csv has no answers: it has text, label"),
        (
            "t.json",
            squad({"id": "q2", "question": "a", "answers": [{"text": "a", "answer_start": 1}]}),
            {},
            f"row 2: {Q2}",
        ),
        ("t.json", squad({"id": "q2", "question": "a"}), {}, "t.json: row 2: there are no answers in column 'answers'"),
        (
            "t.json",
            squad({"id": "q2", "question": "a", "answers": [{"text": "a", "answer_start": 0}], "is_impossible": True}),
            {},
            f"t.json: row 2: {Q2}it has answers and is_impossible",
        ),
        ("t.json", squad("odd"), {}, "t.json: row 2: the question 'odd' is no JSON object"),
        ("t.json", squad(qas=None), {}, "t.json: row 1: paragraph 1 of article 1 has no list of questions (qas)"),
        ("t.json", squad(context=None), {}, "t.json: row 1: there is no text in column 'context'"),
        (
            "t.json",
            squad().replace('"id"', '"question": "a", "id"'),
            {},
            "it, or what it is in, has the key 'question' tw",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, name, content, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content, name=name, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def content_of(found) -> list[list[int]]:
    """Return what a model reads and is to learn."""
    return [found.train.token_columns[name].tolist() for name in found.train.token_columns]


def test_every_format_gives_the_same_features(tmp_path):
    import datasets

    rows = list(questions.rows(30, 1, unanswered=True))
    first = train(tmp_path, questions.write_rows(tmp_path / "t.jsonl", 30, 1, unanswered=True))
    assert first.report[0].endswith(
        "question and context: columns question, context; answers: column answers, a question may have none; "
        "not read: id"
    )
    assert "10 of 30 questions have no answer" in first.report[1]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    pairs = [
        {
            **each,
            "answers": [
                dict(zip(("text", "answer_start"), one, strict=True))
                for one in zip(*each["answers"].values(), strict=True)
            ],
        }
        for each in rows
    ]
    (tmp_path / "pairs.jsonl").write_text(lines(*pairs))
    (tmp_path / "array.json").write_text(json.dumps(pairs, indent=1))
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    questions.write_squad(tmp_path / "squad.json", 30, 1, unanswered=True)
    questions.write_squad(tmp_path / "indented.json", 30, 1, unanswered=True, indent=1)
    for name in ("t.parquet", "pairs.jsonl", "array.json", "set", "squad.json", "indented.json"):
        found = train(tmp_path, tmp_path / name)
        assert content_of(found) == content_of(first) and found.task == first.task, name
    other = [{"q": each["question"], "c": each["context"], "a": each["answers"]} for each in rows]
    (tmp_path / "other.jsonl").write_text(lines(*other))
    asked = train(tmp_path, tmp_path / "other.jsonl", text_column_names="q,c", label_column_name="a")
    assert content_of(asked) == content_of(first)


def test_a_table_with_labels_too_is_one_of_texts_and_labels_unless_the_task_is_named(tmp_path):
    rows = lines({**GOOD, "label": "up"}, {**GOOD, "label": "down"})
    assert load(tmp_path, rows, name="t.jsonl").task.kind == "classification"
    found = load(tmp_path, rows, name="t.jsonl", task="question_answering").task
    assert found.kind == "question_answering" and found.has_unanswered is False


def test_characters_are_pythons_whatever_stands_before_the_answer(tmp_path):
    context = "\U0001f600 naïve 北京 film"
    start = context.index("film")
    found = load(tmp_path, row(context=context, answers={"text": ["film"], "answer_start": [start]}), name="t.jsonl")
    features = found.train
    place, starts = (features.token_columns[name] for name in (PLACE, "start_character"))
    assert starts[(place & FIRST).astype(bool)].tolist() == [2, start]


def test_what_is_not_read_as_it_stands_is_counted(tmp_path):
    long, film = " ".join(["film"] * 30), "film " * 9
    rows = [
        GOOD,
        {
            **GOOD,
            "question": film,
            "context": f"{long} good",
            "answers": {"text": ["good"], "answer_start": [len(long) + 1]},
        },
        {**GOOD, "context": f"{long} is", "answers": {"text": [long], "answer_start": [0]}},
    ]
    found = load(tmp_path, lines(*rows), name="t.jsonl", doc_stride=8)
    report = "\n".join(found.report)
    assert "2 rows are longer than --max_seq_length and are read in overlapping windows" in report
    assert "1 questions are cut: they leave the context less than half of --max_seq_length" in report
    assert "1 rows have windows that share less than --doc_stride" in report
    assert "1 answers stand whole in no window: their rows are learnt as questions without one" in report
    features = found.train
    place = features.token_columns[PLACE]
    assert features.lengths.max() == 16
    # A window without its answer is learnt as one without an answer, at the first token.
    assert [np.count_nonzero(place & bit) for bit in (NULL, FIRST, LAST)] == [features.num_features] * 3
    held = np.add.reduceat((place & FIRST > 0) & (place & NULL == 0), features.offsets[:-1])
    assert [int(held[features.row_of == number].sum() > 0) for number in range(3)] == [1, 1, 0]


def test_settings_of_answers_are_kept_with_the_task_and_change_the_rows_only_where_they_do(tmp_path):
    from ringtune.train import task

    plain = load(tmp_path, lines(GOOD), name="t.jsonl")
    strided = load(tmp_path, lines(GOOD), name="t.jsonl", doc_stride=4)
    assert strided.digest != plain.digest and strided.task.doc_stride == 4
    assert load(tmp_path, lines(GOOD), name="t.jsonl", n_best_size=3).digest == plain.digest
    (tmp_path / "task.json").write_bytes(task.to_bytes(strided.task, 16))
    assert task.read(tmp_path) == (strided.task, 16)


def test_texts_of_rows_are_kept_with_their_features_also_over_several_batches(tmp_path):
    rows = list(questions.rows(600, 1, unanswered=True))
    path = questions.write_rows(tmp_path / "t.jsonl", 600, 1, unanswered=True)
    features = train(tmp_path, path).train
    assert features.row_of[-1] == 599 and len(features.texts.offsets) == 601
    for number in (0, 511, 512, 599):
        assert json.loads(features.texts[number]) == [rows[number]["context"], rows[number]["answers"]["text"]]


def test_windows_that_share_nothing_are_other_rows_than_those_of_the_default(tmp_path):
    context = "good " + "film " * 60
    content = lines({**GOOD, "context": context, "answers": {"text": ["good"], "answer_start": [0]}}, GOOD)
    default, none = load(tmp_path, content, name="t.jsonl"), load(tmp_path, content, name="t.jsonl", doc_stride=0)
    assert default.digest != none.digest and default.train.num_features > none.train.num_features


@pytest.mark.parametrize("kind", ["t.jsonl", "t.parquet", "t.arrow", "set"])
def test_every_format_refuses_answers_that_are_impossible_and_names_the_question(tmp_path, kind):
    import datasets

    rows = [{**GOOD, "is_impossible": False}, {**GOOD, "id": "q2", "is_impossible": True}]
    path = tmp_path / kind
    if kind == "t.jsonl":
        path.write_text(lines(*rows))
    elif kind == "t.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "t.arrow":
        pa.feather.write_feather(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    with pytest.raises(UsageError, match=f"2: {Q2}it has is_impossible, and answers in column 'answers'"):
        train(tmp_path, path)


def test_an_id_that_is_no_text_or_number_of_a_table_is_not_read(tmp_path):
    rows = [{**GOOD, "id": {"a": 1}, "is_impossible": "yes"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert train(tmp_path, tmp_path / "t.parquet").train.num_features == 1
