"""CSV and TSV files are read as they were written, by one rule for both commands, or refused."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import load, texts, texts_predicted
from ringtune.train import csv_rule
from ringtune.train.contract import UsageError


def both(tmp_path, content: str, name: str = "train.csv") -> list[str]:
    """Return the texts that both commands read."""
    load(tmp_path, content, name=name)
    found = texts(tmp_path / name)
    assert texts_predicted(tmp_path / name) == found
    return found


def test_a_lone_quote_in_a_tsv_file_is_a_character(tmp_path):
    content = 'text\tlabel\nfine\tup\n" bad\tdown\nthe 12" cut\tup\ndull\tdown\n'
    assert both(tmp_path, content, "t.tsv") == ["fine", '" bad', 'the 12" cut', "dull"]
    assert any("quotes are characters" in line for line in load(tmp_path, content, name="t.tsv").report)


def test_two_lone_quotes_in_a_tsv_file_are_two_readings(tmp_path):
    content = 'text\tlabel\nfine\tup\n"\tdown\nwarm\tup\n"\tdown\nodd\tup\n'
    with pytest.raises(
        UsageError, match=r"two ways: .* rows if quotes enclose .*--csv_quoting minimal or --csv_quoting"
    ):
        load(tmp_path, content, name="t.tsv")
    found = load(tmp_path, content, name="t.tsv", csv_quoting="none")
    assert found.train.num_features == 5


def test_a_tsv_file_whose_quotes_may_be_either_is_reported(tmp_path):
    content = 'text\tlabel\n"fine"\tup\nbad\tdown\n'
    assert both(tmp_path, content, "t.tsv") == ["fine", "bad"]
    assert any("quotes enclose its fields" in line for line in load(tmp_path, content, name="t.tsv").report)
    inches = content.replace('"fine"', 'the 12" cut')  # one reading
    assert not any("enclose" in line for line in load(tmp_path, inches, name="t.tsv").report)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_what_quotes_are_is_the_same_in_all_splits(tmp_path, is_training, ending):
    blank = "\t" if ending == ".tsv" else ","
    table = f"text{blank}label\n{{}}{blank}up\nbad{blank}down\n"
    one, other = table.format('"fine" film'), table.format('"fine"')
    files = (one, other) if is_training else (other, one)
    found = load(tmp_path, *files, name=f"t{ending}")
    read = found.validation[""] if is_training else found.train
    plain = load(tmp_path, other, name=f"t{ending}", csv_quoting="none").train
    assert read.token_columns["input_ids"].tolist() == plain.token_columns["input_ids"].tolist()
    assert any("quotes are characters of its texts, as in" in line for line in found.report)


def test_a_field_that_begins_with_a_quoted_word_is_read_whole_by_both_commands(tmp_path):
    content = 'text,label\n"Good" film,up\nbad,down\n'
    assert both(tmp_path, content) == ['"Good" film', "bad"]


def test_a_row_that_fits_neither_rule_is_named_by_both_commands(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text,label\n"a, fine",up\n"Good" film,up\nbad,down\n')
    with pytest.raises(UsageError, match=r"train.csv:3: it cannot be read as csv"):
        load(tmp_path, path.read_text())
    assert texts_predicted(path) == ["a, fine", None, "bad"]


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", ",")])
def test_what_separates_the_fields_is_seen_in_the_header_and_reported(tmp_path, name, separator):
    content = "text,label\nfine,up\nbad,down\n".replace(",", separator)
    assert both(tmp_path, content, name) == ["fine", "bad"]
    assert any("its fields are separated by" in line for line in load(tmp_path, content, name=name).report)


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_what_cannot_separate_fields_is_refused(delimiter):
    with pytest.raises(UsageError, match="--csv_delimiter"):
        csv_rule.require_delimiter(delimiter)


@pytest.mark.parametrize("row", ["film", "film,up,more"])
def test_a_row_with_a_field_too_few_or_too_many_is_an_error_with_its_line_in_both_commands(tmp_path, row):
    content = f"text,label\nfine,up\n{row}\nbad,down\n"
    with pytest.raises(UsageError, match=r"train.csv:3: it has \d fields, the header 2"):
        load(tmp_path, content)
    assert texts_predicted(tmp_path / "train.csv") == ["fine", None, "bad"]


def test_texts_that_are_all_digits_are_texts(tmp_path):
    assert both(tmp_path, "text,label\n12,up\n007,down\n") == ["12", "007"]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters='\n",\t'), min_size=1)


@settings(max_examples=300)
@given(rows=st.lists(TEXT, min_size=1, max_size=8), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_csv_writers_write_comes_back(tmp_path_factory, rows, quoting):
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=quoting)
    writer.writerows([("text", "label"), *((row, "up") for row in rows)])
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(stream.getvalue().encode())
    assert texts(path) == rows == texts_predicted(path)
