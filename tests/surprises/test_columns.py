"""Which columns are read is known from their names, or asked for."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import load, texts_predicted, train
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.predictor import kept_names
from ringtune.train.task.classification import Classification

TRAINED = Classification(Columns(("text",), "label"), ("down", "up"))


def train_columns(tmp_path, *names: str, **settings) -> tuple[str, ...]:
    lines = [",".join([*names, "label"])]
    lines += [",".join([*(f"{word} {name}" for name in names), label]) for word, label in (("a", "up"), ("b", "down"))]
    return load(tmp_path, "\n".join(lines) + "\n", **settings).task.columns.text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("text", "label_text"), ("text",)),
        (("author", "text"), ("text",)),
        (("id", "whatever"), ("whatever",)),
        (("sentence2", "sentence1"), ("sentence1", "sentence2")),
        (("hypothesis", "premise", "genre"), ("premise", "hypothesis")),
        (("question", "sentence", "idx"), ("question", "sentence")),
        (("text", "text_pair"), ("text", "text_pair")),
        (("text1", "text2"), ("text1", "text2")),
        (("review", "stars"), ("review",)),
    ],
)
def test_names_that_are_well_known_decide(tmp_path, names, text):
    assert train_columns(tmp_path, *names) == text


@pytest.mark.parametrize(
    "names", [("title", "body_html"), ("a", "b"), ("text", "sentence1", "sentence2"), ("review", "comment", "x")]
)
def test_names_that_leave_two_readings_are_refused_with_both_ways_out(tmp_path, names):
    with pytest.raises(UsageError, match="which column holds the text.*--text_column_names .* or --text_column_names"):
        train_columns(tmp_path, *names)


@pytest.mark.parametrize(
    "content", ["what a good film it is,25,eh1\nbad,3,eh2\n", "1000,1\n1001,0\n", "10,what a good film it is\n11,b\n"]
)
def test_a_file_without_a_line_of_names_is_told_to_need_one(tmp_path, content):
    for settings in ({}, {"text_column_names": "text"}, {"task": "multiple_choice", "text_column_names": "a,b,c"}):
        with pytest.raises(UsageError, match="if that is a row of a file already, put a line with the names of"):
            load(tmp_path, content, **settings)


def test_a_long_question_may_be_a_column_s_name(tmp_path):
    content = "How old are you right now?,How do you feel about it?,Overall\n1,fine,up\n2,bad,down\n"
    with pytest.raises(
        UsageError, match=r"It has 'How.*; for example --text_column_names 'How|It has How.*for example"
    ):
        load(tmp_path, content, label_column_name="Overall")


def test_a_table_without_columns_is_refused(tmp_path):
    pq.write_table(pa.table({}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="there is no column 'text'|there are no rows"):
        train(tmp_path, tmp_path / "t.parquet", text_column_names="text")


def test_what_is_not_read_is_reported(tmp_path):
    found = load(tmp_path, "text,label,label_text\nfine,1,up\nbad,0,down\n")
    assert found.report[0].endswith("text: column text; label: column label, 2 classes; not read: label_text")


def test_prediction_reads_the_columns_of_the_training_and_refuses_a_file_without_them(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("author,text\nme,fine\n")
    source = inputs.open_source(PredictConfig("m", str(path), "out.csv"), TRAINED)
    assert inputs.choose_columns(source, PredictConfig("m", str(path), "out.csv"), TRAINED).text == ("text",)
    path.write_text("author,review\nme,fine\n")
    source = inputs.open_source(PredictConfig("m", str(path), "out.csv"), TRAINED)
    with pytest.raises(UsageError, match="there is no column 'text', which the model was trained on"):
        inputs.choose_columns(source, PredictConfig("m", str(path), "out.csv"), TRAINED)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["text", "label"], {"text": "text", "label": "input_label"}),
        (["label", "input_label"], {"label": "input_input_label", "input_label": "input_label"}),
        (["error", "label", "label"], {"error": "input_error", "label": "input_label"}),
    ],
)
def test_every_kept_column_comes_out_under_a_name_of_its_own(names, shown):
    assert kept_names(names, ["label", "probability_up", "error"]) == shown


def test_a_message_about_hundreds_of_columns_is_short(tmp_path):
    with pytest.raises(UsageError) as caught:
        train_columns(tmp_path, *(f"column_{number}" for number in range(300)))
    assert len(str(caught.value)) < 500 and "and 289 more" in str(caught.value)


@pytest.mark.parametrize(("name", "shown"), [("Label", "Label"), (" label", "' label'"), ("label ", "'label '")])
def test_a_column_named_nearly_like_the_label_is_shown_with_its_blanks_and_can_be_named(tmp_path, name, shown):
    content = f"text,{name}\nfine,up\nbad,down\n"
    with pytest.raises(UsageError, match=f"no column 'label'; it has text, {shown}; the nearest is {shown}"):
        load(tmp_path, content)
    assert load(tmp_path, content, label_column_name=name).task.classes == ("down", "up")


def test_a_column_named_nearly_like_the_text_is_shown_by_prediction(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("Text ,more\nfine,1\n")
    with pytest.raises(UsageError, match="no column 'text', which .*; the nearest is 'Text '; name the column"):
        texts_predicted(path)
    assert texts_predicted(path, text_column_names="Text ") == ["fine"]


def test_a_name_of_thousands_of_characters_gives_short_lines(tmp_path):
    name = "t" * 5000
    found = load(tmp_path, f"{name},label\nfine,up\nbad,down\n")
    assert all(len(line) < 500 for line in found.report)
    with pytest.raises(UsageError) as caught:
        load(tmp_path, f"{name},label\nfine,up\nb\n")
    assert len(str(caught.value)) < 500
