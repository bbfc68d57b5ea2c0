"""Texts without labels: plain files however they are packed, a column of any table, and what of them is refused."""

from __future__ import annotations

import gzip

import pytest
from preparing import load, settings_of
from ringtune.train import data
from ringtune.train.contract import UsageError

LINES = "the film was good\nthe plot\n\nthe cast was odd\n"
TASK = {"task": "masked_lm", "line_by_line": True}


def texts_of(tmp_path, content, name: str = "t.txt", **settings):
    return load(tmp_path, content, name=name, **{**TASK, **settings})


@pytest.mark.parametrize("content", [LINES, LINES.replace("\n", "\r\n"), "\ufeff" + LINES, LINES.rstrip()])
def test_a_line_is_a_text_and_a_blank_line_is_none(tmp_path, content):
    found = texts_of(tmp_path, content.encode())
    assert found.train.row_of.tolist() == [0, 1, 3] and found.train.lengths.tolist() == [6, 4, 6]
    assert found.report[0].endswith("t.txt: text: column text; no label")
    assert found.report[1].endswith(
        "each text is a row; 0.15 of the tokens of a row are masked, single tokens (--whole_word_mask)"
    )
    assert any("1 rows hold no text, as blank lines do: they give no tokens" in line for line in found.report)


def test_a_packed_file_is_read_like_any_other_and_joined_texts_are_reported(tmp_path):
    found = texts_of(tmp_path, gzip.compress(LINES.encode()), "t.txt.gz", line_by_line=False, mlm_probability=0.3)
    assert found.train.lengths.tolist() == [16] and found.train.num_terms.tolist() == [3]
    assert "texts are joined and cut into rows of --max_seq_length; 0.3 of the tokens" in found.report[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,text,label\n1,the film,up\n2,the plot,\n"),
        ("t.jsonl", '{"id": 1, "text": "the film", "label": ["x"]}\n{"id": 2, "text": "the plot"}\n'),
    ],
)
def test_a_label_is_not_read_and_that_is_reported(tmp_path, name, content):
    found = texts_of(tmp_path, content.encode(), name)
    assert found.train.lengths.tolist() == [4, 4]
    assert found.report[0].endswith(f"{name}: text: column text; no label; not read: id, label")


def test_rows_that_stand_in_both_splits_are_counted_without_blank_lines(tmp_path):
    found = load(tmp_path, LINES.encode(), "\n\nthe plot\na scene\n", name="t.txt", **TASK)
    assert any(line.endswith("1 of 4 rows are training rows as well") for line in found.report)
    assert sum("training rows as well" in line for line in found.report) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.txt", b"fine\nthe \xff film\n", r"t.txt:2: byte 0xff in column 'text' is not UTF-8"),
        ("t.txt", "fine".encode("utf-16"), "it is UTF-16 text"),
        ("t.txt", b"", "the file is empty"),
        ("t.txt", b"\n \n\n", "there is no token in it that could be masked"),
        ("t.csv", b"sentence1,sentence2\na,b\n", "sentence1, sentence2 are a pair of texts"),
        ("t.csv", b"title,lead\na,b\n", "which column holds the text"),
        ("t.conll", b"film O\n", "which column holds the text|not text"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path, name, content, words):
    with pytest.raises(UsageError, match=words):
        texts_of(tmp_path, content, name)


def test_a_plain_file_without_the_task_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the ending .txt is not known"):
        load(tmp_path, LINES.encode(), name="t.txt")


def test_runs_of_other_tasks_keep_their_digest_and_each_setting_of_masks_changes_that_of_theirs(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nfine,up\nbad,down\n")
    found = {}
    for more in ({}, {"task": "masked_lm"}, TASK, {**TASK, "mlm_probability": 0.2}, {**TASK, "whole_word_mask": True}):
        config = settings_of(tmp_path, train_file=str(tmp_path / "t.csv"), **more)
        found[str(more)] = data.digest(config, data.open_splits(config))
    assert len(set(found.values())) == 5
