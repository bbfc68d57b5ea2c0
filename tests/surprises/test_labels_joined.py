"""Labels that are several classes in one text, as GoEmotions' files have them, where a row is taken to have one."""

from __future__ import annotations

import pytest
from preparing import load
from ringtune.train.contract import UsageError

ROWS = ("a\t3", "b\t27", "c\t3,27", "d\t3", "e\t3,27")


def table(*rows: str) -> str:
    return "text\tlabel\n" + "\n".join(rows) + "\n"


def test_they_are_reported_with_the_flag_that_takes_them_apart(tmp_path):
    found = load(tmp_path, table(*ROWS), name="t.tsv")
    assert found.task.classes == ("27", "3", "3,27")
    expected = (
        "1 of 3 classes are others joined, such as '3,27'; --label_separator ',' if a row may have several labels"
    )
    assert any(expected in line for line in found.report)
    for rows in (ROWS[:2] + ROWS[3:4], ("a\tCity, State", "b\tother", "c\tCity", "d\tother")):
        assert not any("joined" in line for line in load(tmp_path, table(*rows), name="u.tsv").report)


def test_one_that_only_validation_has_is_refused_with_the_flag(tmp_path):
    with pytest.raises(UsageError, match=r"'27, 3' does not occur .*; --label_separator ',' if a row may have several"):
        load(tmp_path, table(*ROWS), table("f\t27, 3"), name="t.tsv")
    with pytest.raises(UsageError, match=r"'5,3' does not occur in the training rows; 27, 3, '?3,27'?$"):
        load(tmp_path, table(*ROWS), table("f\t5,3"), name="t.tsv")
