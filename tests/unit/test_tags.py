"""Tags are read and written by their schemes, and scored as seqeval scores them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train.contract import UsageError
from ringtune.train.task import tags
from ringtune.train.task.entity_scores import EntityCounts
from ringtune.train.task.tags import TagColumn

#: Random sequences, broken ones among them, and what seqeval 1.2.2 says of them in its default mode.
GOLDEN = json.loads((Path(__file__).parent / "golden" / "seqeval.json").read_text())
ANY_TAGS = st.lists(
    st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "A-c"))]), max_size=12
)


def column(*rows: list[str] | None, **settings) -> TagColumn:
    found = TagColumn("ner_tags", **{"scheme": None, **settings})
    found.add(pa.array(rows, pa.list_(pa.string())), map("rows.jsonl:{}".format, range(1, len(rows) + 1)))
    return found


def split(rows: list[str]) -> list[list[str]]:
    return [row.split() for row in rows]


def scored(true: list[list[str]], predicted: list[list[str]], num_parts: int = 1):
    """Return the scores of tags, by outputs that are 1 for the tag and 0 for others."""
    classes = sorted({tag for row in (*true, *predicted) for tag in row} | {"O"})
    counts = EntityCounts(classes)
    for rows in np.array_split(np.arange(len(true)), num_parts):
        outputs, targets = [], []
        for row in rows.tolist():
            for word, (tag, guess) in enumerate(zip(true[row], predicted[row], strict=True)):
                targets.append((classes.index(tag), word, row))
                outputs.append(np.eye(len(classes), dtype=np.float32)[classes.index(guess)])
        counts.add(np.array(outputs), np.array(targets))
    return counts.scores()


@pytest.mark.parametrize("case", GOLDEN)
def test_entities_and_scores_are_those_of_seqeval_also_of_broken_sequences(case):
    true, predicted = split(case["true"]), split(case["predicted"])
    assert [[list(each) for each in tags.entities(row)] for row in true] == case["entities"]
    found = scored(true, predicted)
    for name in ("precision", "recall", "f1", "accuracy"):
        assert found.values[name] == pytest.approx(case[name], abs=1e-12)
    by_type = {name: each["f1"] for name, each in found.details["entities"].items() if each["true"] + each["predicted"]}
    assert by_type == pytest.approx(case["by_type"], abs=1e-12)


@pytest.mark.parametrize(("predicted", "f1"), [("O I-PER O", 1.0), ("B-PER I-PER O", 0.0), ("O B-LOC O", 0.0)])
def test_a_broken_begin_is_one_and_a_wrong_end_or_type_is_not_found(predicted, f1):
    assert scored([["O", "B-PER", "O"]], [predicted.split()]).values["f1"] == f1


def test_a_word_without_a_piece_parts_an_entity_as_it_does_in_predictions():
    counts = EntityCounts(["O", "B-PER", "I-PER"])
    outputs = np.eye(3, dtype=np.float32)[[1, 2, 2]]
    counts.add(outputs, np.array([[1, 0, 5], [2, 2, 5], [2, 3, 5]]))  # there is no word 1
    assert counts.true == {"PER": 2} and counts.scores().values["f1"] == 1
    counts.add(outputs, np.array([[1, 0, 6], [2, 1, 6], [2, 0, 7]]))  # the last one is of another row
    assert counts.true == {"PER": 4} and counts.num_rows == 3


def test_scores_do_not_depend_on_how_rows_are_parted():
    true, predicted = split(GOLDEN[0]["true"]), split(GOLDEN[1]["predicted"])
    true = [row for case in GOLDEN for row in split(case["true"])]
    predicted = [row for case in GOLDEN for row in split(case["predicted"])]
    whole = scored(true, predicted)
    assert whole.num_rows == len(true)
    for num_parts in (2, 7):
        assert scored(true, predicted, num_parts) == whole


@given(ANY_TAGS, st.sampled_from([tags.IOB1, tags.IOB2, tags.BIOES]))
def test_every_scheme_says_the_same_entities(row, scheme):
    found = tags.entities(row)
    assert tags.entities(tags.written(found, len(row), scheme)) == found
    assert tags.to_iob2(tags.written(found, len(row), scheme)) == tags.to_iob2(row)


@given(st.lists(ANY_TAGS, min_size=1, max_size=6), st.sampled_from([tags.IOB1, tags.IOB2, tags.BIOES]))
def test_a_column_written_in_a_scheme_is_recognised(rows, scheme):
    """Any column of BIOES has E or S; one of IOB1 has an I that begins; one of IOB2 none."""
    written = [tags.written(tags.entities(row), len(row), scheme) for row in rows]
    if any(tags.entities(row) for row in rows):
        found = column(*written)
        assert found.scheme == scheme and found.note() == ""


@pytest.mark.parametrize(
    ("row", "scheme", "iob2"),
    [
        ("I-PER I-PER O I-LOC", "iob1", "B-PER I-PER O B-LOC"),
        ("I-PER B-PER O", "iob1", "B-PER B-PER O"),
        ("B-PER I-PER B-PER O", "iob2", "B-PER I-PER B-PER O"),
        ("B-PER E-PER S-PER O", "bioes", "B-PER I-PER B-PER O"),
        ("B-PER O I-PER O", "iob2", "B-PER O B-PER O"),
    ],
)
def test_tags_are_trained_as_iob2(row, scheme, iob2):
    assert column(row.split()).scheme == scheme
    assert " ".join(tags.to_iob2(row.split())) == iob2


def test_what_keeps_to_no_scheme_is_counted_and_a_flag_decides_how_predictions_are_written():
    found = column(["B-PER", "O", "I-PER"])
    assert found.note().startswith("1 entities do not begin as IOB2 has it")
    assert column(["B-PER", "O", "I-PER"], scheme="iob1").scheme == "iob1"


def test_classes_are_closed_and_declared_ones_keep_their_order():
    assert column(["S-PER", "O"]).classes("rows") == ("O", "B-PER", "I-PER")
    declared = ("O", "I-Z", "B-Z", "B-A", "I-A")
    assert column(["B-A"], declared=declared).classes("rows") == declared
    assert column(["S-A"], declared=("O", "S-Z", "S-A")).classes("rows") == ("O", "B-Z", "I-Z", "B-A", "I-A")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((["O", "NOUN"],), "rows.jsonl:1: the tag 'NOUN' in column 'ner_tags' is none; O, or B-, I-, E- or S- and"),
        ((["O"], ["B-"]), "rows.jsonl:2: the tag 'B-'"),
        ((["O"], None), "rows.jsonl:2: there are no tags in column 'ner_tags'"),
        ((["O"], ["O", "O"]), "rows: all tags in column 'ner_tags' are O"),
    ],
)
def test_tags_that_are_none_are_refused(rows, message):
    with pytest.raises(UsageError) as caught:
        column(*rows).classes("rows")
    assert message in str(caught.value)
