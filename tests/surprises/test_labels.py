"""What a label column is follows from all of it, and where it could be something else that is reported."""

from __future__ import annotations

import pytest
from preparing import load
from ringtune.train.contract import UsageError


def rows(*labels: str) -> str:
    return "text,label\n" + "".join(f"film {number},{label}\n" for number, label in enumerate(labels))


def test_whole_numbers_written_as_decimals_are_classes_and_that_is_reported(tmp_path):
    found = load(tmp_path, rows("1.0", "0.0", "1.0"))
    assert found.task.classes == ("0", "1")
    assert any("whole numbers written as decimals" in line and "--regression true" in line for line in found.report)
    assert found.train.feature_columns["labels"].tolist() == [1, 0, 1]


def test_the_user_decides_what_whole_decimals_are(tmp_path):
    assert load(tmp_path, rows("1.0", "0.0"), regression=False).task.classes == ("0", "1")
    found = load(tmp_path, rows("1.0", "0.0"), regression=True)
    assert found.task.kind == "regression" and not any("decimals" in line for line in found.report)


def test_many_whole_decimals_are_numbers_to_predict_and_that_is_reported(tmp_path):
    found = load(tmp_path, rows(*(f"{number}.0" for number in range(30))))
    assert found.task.kind == "regression"
    assert any("more than 20 of them" in line and "--regression false" in line for line in found.report)


def test_one_and_the_same_number_is_one_class_however_it_is_written(tmp_path):
    assert load(tmp_path, rows("1", "1.0", "0", "0.0")).task.classes == ("0", "1")
    found = load(tmp_path, rows("1", "1.0", "other", "2.0"))
    assert found.task.classes == ("1", "2.0", "other")
    assert found.train.feature_columns["labels"].tolist() == [0, 0, 2, 1]
    found = load(tmp_path, rows("1", "0"), rows("1.0", "0.0"))
    assert found.validation[""].feature_columns["labels"].tolist() == [1, 0]


def test_numbers_with_leading_zeros_are_names(tmp_path):
    assert load(tmp_path, rows("01", "02", "10")).task.classes == ("01", "02", "10")


@pytest.mark.parametrize("number", [2, 600, 10_002])
@pytest.mark.parametrize("gap", ["n/a", "NaN", "?", ""])
def test_a_gap_among_numbers_is_named_with_its_row_at_any_length(tmp_path, number, gap):
    labels = [str(each % 2) for each in range(number)] + [gap, "1"]
    with pytest.raises(UsageError, match=rf"train.csv:{number + 2}: there is no label in column 'label'"):
        load(tmp_path, rows(*labels))


def test_a_word_for_a_gap_among_words_is_a_class(tmp_path):
    assert load(tmp_path, rows("none", "favor", "against")).task.classes == ("against", "favor", "none")


@pytest.mark.parametrize("label", ["", "?", "x"])
@pytest.mark.parametrize("ratings", [True, False])
def test_the_labels_of_test_rows_do_not_matter(tmp_path, label, ratings):
    (tmp_path / "test.csv").write_text(rows(label, "1"))
    found = load(tmp_path, rows("0.5", "1.5") if ratings else rows("0", "1"), test_file=str(tmp_path / "test.csv"))
    assert found.test.num_features == 2


def test_a_label_that_is_once_a_number_and_once_a_text_is_one_class(tmp_path):
    content = '{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n{"text": "c", "label": 0}\n'
    assert load(tmp_path, content, name="t.jsonl").task.classes == ("0", "1")


def test_classes_come_from_the_whole_file_and_a_sample_is_drawn_by_the_seed(tmp_path):
    content = rows(*["down"] * 50, *["up"] * 50)  # sorted by label
    found = load(tmp_path, content, max_train_samples=20)
    assert found.task.classes == ("down", "up") and found.train.num_features == 20
    assert 0 < found.train.feature_columns["labels"].sum() < 20
    assert any("20 of 100 rows are used, drawn by the seed" in line for line in found.report)
    others = [load(tmp_path, content, max_train_samples=20, seed=seed).train for seed in range(6)]
    sums = {each.feature_columns["labels"].sum() for each in others}
    assert len(sums) > 1


def test_nearly_one_class_and_classes_of_one_row_are_reported(tmp_path):
    found = load(tmp_path, rows(*["down"] * 97, "up", "up", "odd"))
    assert any("97.0% of the rows are 'down': always answering so has that accuracy" in line for line in found.report)
    assert any("1 of 3 classes have a single row: 'odd'" in line for line in found.report)


def test_rows_that_are_cut_are_counted_in_every_split(tmp_path):
    words = " ".join(["film"] * 40)
    found = load(tmp_path, f"text,label\nfine,up\n{words},down\n", f"text,label\n{words},up\n{words} film,down\n")
    cut = [line for line in found.report if "are cut" in line]
    assert len(cut) == 2
    assert "1 of 2 rows have more than 16 tokens and are cut; the longest has 42 (--max_seq_length)" in cut[0]
    assert "2 of 2 rows have more than 16 tokens and are cut; the longest has 43" in cut[1]


def test_rows_that_stand_in_training_and_validation_are_counted(tmp_path):
    found = load(tmp_path, rows("up", "down", "up"), rows("up") + "new,down\n")
    assert any("dev_train.csv: 1 of 2 rows are training rows as well" in line for line in found.report)


def test_what_was_found_is_reported_again_from_the_cache_under_the_names_of_this_run(tmp_path):
    first = load(tmp_path, rows("1.0", "0.0"), rows("1", "0"))
    (tmp_path / "train.csv").rename(tmp_path / "moved.csv")
    again = load(tmp_path, (tmp_path / "moved.csv").read_text(), rows("1", "0"), name="moved.csv")
    assert [line.replace("moved", "train") for line in again.report] == list(first.report)


@pytest.mark.parametrize("number", ["1e400", "inf", "-Infinity"])
def test_a_number_that_is_not_finite_is_no_class_of_its_own(tmp_path, number):
    with pytest.raises(UsageError, match=r"train.csv:4: (there is no label|the rating)"):
        load(tmp_path, rows("1", "0", number))


def test_truth_values_among_numbers_are_two_readings(tmp_path):
    content = '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n{"text": "c", "label": 0}\n'
    with pytest.raises(UsageError, match=r"t.jsonl:2: the label is True .*which holds numbers, too"):
        load(tmp_path, content, name="t.jsonl")


def test_classes_that_differ_in_capitals_alone_are_different_ones(tmp_path):
    with pytest.raises(UsageError, match="dev_train.csv:2: the label .IT. does not occur in .*; It, Us"):
        load(tmp_path, rows("It", "Us"), rows("IT"))
    found = load(tmp_path, rows("TRUE", "false"), rows("true", "FALSE"))
    assert found.validation[""].feature_columns["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("label", ["film " * 100, "9" * 5000])
def test_a_label_that_is_a_text_is_named_in_a_short_line(tmp_path, label):
    with pytest.raises(UsageError, match=r"train.csv:3: the label in column 'label' has \d+ characters") as caught:
        load(tmp_path, rows("up", label))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", ["text,label\na,\nb,\n", "text,label\na,  \nb,\n"])
def test_a_column_without_any_label_is_refused_with_its_first_row(tmp_path, content):
    with pytest.raises(UsageError, match=r"train.csv:2: there is no label in column 'label'"):
        load(tmp_path, content)
