"""Several files, a pattern or a folder are one table: the rows, the order and the results of one file."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from preparing import predicted, settings_of, texts_predicted, train
from ringtune.train import config, data
from ringtune.train.contract import UsageError
from ringtune.train.predict import config as predict_config

ROWS = [(f"film {number}", ("up", "down")[number % 2]) for number in range(30)]
PARTS = (ROWS[:11], ROWS[11:12], ROWS[12:])


def write(path: Path, rows=ROWS, names=("text", "label")) -> Path:
    """Write rows in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(names))
    match path.name.split(".")[1]:
        case "csv":
            table.to_csv(path, index=False)
        case "tsv":
            table.to_csv(path, index=False, sep="\t")
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "json":
            table.to_json(path, orient="records")
        case "parquet":
            table.to_parquet(path, index=False)
        case "feather":
            table.to_feather(path)
    return path


def write_parts(folder: Path, ending: str = "csv", parts=PARTS) -> list[Path]:
    return [write(folder / f"part-{number}.{ending}", rows) for number, rows in enumerate(parts)]


def same_features(one, other) -> bool:
    def arrays(features):
        return [features.row_of, *features.token_columns.values(), *features.feature_columns.values()]

    return all(map(np.array_equal, arrays(one.train), arrays(other.train)))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "feather", "csv.gz"])
def test_a_table_in_several_files_is_the_table_in_one(tmp_path, ending):
    whole = write(tmp_path / f"whole.{ending}")
    write_parts(tmp_path / "parts", ending)
    folder = tmp_path / "parts"
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    (folder / f".part-0.{ending}.crc").touch()
    one = train(tmp_path, whole, max_train_samples=17)
    for value in (folder, f"{folder}/part-*", f"{tmp_path}/**/part-*.{ending}"):
        several = train(tmp_path, value, max_train_samples=17)
        assert same_features(several, one) and several.task == one.task
        assert texts_predicted(value) == texts_predicted(whole) == [text for text, _ in ROWS]
    assert one.digest != several.digest


def test_files_of_which_some_are_compressed_are_one_table(tmp_path):
    second = write_parts(tmp_path)[1]
    second.with_name("part-1.csv.gz").write_bytes(gzip.compress(second.read_bytes()))
    second.unlink()
    assert texts_predicted(f"{tmp_path}/part-*") == [text for text, _ in ROWS]


def test_named_files_are_read_as_named_and_others_sorted_as_texts(tmp_path):
    for number in (1, 2, 10):
        write(tmp_path / f"part-{number}.csv", [(f"film {number}", "up")])
    assert texts_predicted(tmp_path) == texts_predicted(f"{tmp_path}/*.csv") == ["film 1", "film 10", "film 2"]
    named = ",".join(f"{tmp_path}/part-{number}.csv" for number in (10, 1, 2))
    assert texts_predicted(named) == ["film 10", "film 1", "film 2"]


@pytest.mark.parametrize(
    "words",
    [
        ["--train_file", "a.csv", "b.csv"],
        ["--train_file", "a.csv,b.csv"],
        ["--train_file=a.csv", "b.csv"],
        ["--train-file", "a.csv", "--train_file=b.csv"],
    ],
)
def test_a_list_of_files_may_be_written_in_every_way(words):
    found, _ = config.parse(["--model_name_or_path", "m", *words, "--seed", "7", "--bf16"])
    assert (found.train_file, found.seed, found.bf16) == ("a.csv,b.csv", 7, True)
    words = [word.replace("train", "input").replace("_file", "").replace("-file", "") for word in words]
    found, _ = predict_config.parse(["--model_name_or_path", "m", *words, "--output", "o.csv"])
    assert found.input == "a.csv,b.csv"


@pytest.mark.parametrize("words", [["--train_file"], ["--train_file", "--bf16"], ["a.csv", "--train_file", "a.csv"]])
def test_a_list_without_files_and_a_word_without_a_flag_are_refused(words):
    with pytest.raises(UsageError, match="it has no value|it has 2 values, m, a.csv"):
        config.parse(["--model_name_or_path", "m", *words])


@pytest.mark.parametrize("name", ["a,b.csv", "a[1].csv", "a b.csv", "what?.csv"])
def test_a_name_that_exists_is_one_file_whatever_is_in_it(tmp_path, name):
    write(tmp_path / name)
    assert train(tmp_path, tmp_path / name).train.num_features == len(ROWS) == len(texts_predicted(tmp_path / name))


def test_files_and_their_rows_are_reported_in_one_line(tmp_path):
    write_parts(tmp_path / "few")
    line = next(each for each in train(tmp_path, tmp_path / "few").report if "3 files" in each)
    order = "part-0.csv (11), part-1.csv (1), part-2.csv (18)"
    assert line == f"{tmp_path / 'few'}: 3 files with 30 rows, read in this order: {order}"
    write_parts(tmp_path / "many", parts=[[row] for row in ROWS])
    line = next(each for each in train(tmp_path, tmp_path / "many").report if "30 files" in each)
    assert line.endswith("30 files with 30 rows, read in this order: part-0.csv (1), part-1.csv (1) ... part-9.csv (1)")
    again = train(tmp_path, tmp_path / "many")
    assert line in again.report


def test_files_without_rows_are_named_where_others_have_some(tmp_path):
    write_parts(tmp_path, parts=(ROWS, []))
    assert any(line.endswith("1 of 2 files have no rows: part-1.csv") for line in train(tmp_path, tmp_path).report)
    write_parts(tmp_path, parts=([], []))
    with pytest.raises(UsageError, match="there are no rows in it"):
        train(tmp_path, tmp_path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_may_stand_in_any_order_and_must_be_the_same(tmp_path, ending):
    write(tmp_path / f"a.{ending}")
    other = write(tmp_path / f"b.{ending}", [row[::-1] for row in ROWS], ("label", "text"))
    assert texts_predicted(tmp_path) == [text for text, _ in ROWS] * 2
    for names in (("label", "text", "more"), ("text",), ("label", "txt")):
        write(other, [(*row[::-1], "x")[: len(names)] for row in ROWS], names)
        for attempt in (lambda: train(tmp_path, tmp_path), lambda: texts_predicted(tmp_path)):
            with pytest.raises(UsageError) as caught:
                attempt()
            message = str(caught.value)
            assert f"b.{ending}: its columns are {', '.join(names)}; those of " in message
            assert f"a.{ending}: text, label; give all files" in message


def test_a_key_may_be_missing_in_a_json_file_but_not_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine", "label": "up", "note": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "bad", "label": "down"}\n')
    assert train(tmp_path, tmp_path).train.num_features == 2
    assert texts_predicted(tmp_path, keep_columns="all") == ["fine", "bad"]
    (tmp_path / "b.jsonl").write_text('{"body": "bad", "label": "down"}\n')
    for attempt in (lambda: train(tmp_path, tmp_path, text_column_names="text"), lambda: texts_predicted(tmp_path)):
        with pytest.raises(UsageError, match=r"b.jsonl: there is no column 'text'; it has body, label; .*a.jsonl"):
            attempt()


def test_the_rule_for_quotes_is_decided_over_all_files(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"fine, warm",up\nbad,down\n')
    (tmp_path / "b.csv").write_text('text,label\n"Good" film,up\nbad,down\n')
    with pytest.raises(UsageError, match=r"b.csv:2: it cannot be read as csv"):
        train(tmp_path, tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nfine,up\nbad,down\n")
    assert texts_predicted(tmp_path) == ["fine", "bad", '"Good" film', "bad"]
    report = train(tmp_path, tmp_path).report
    assert any("quotes are characters of its texts" in line and "b.csv:2: " in line for line in report)


def test_files_with_other_separators_are_refused_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nfine,up\n")
    (tmp_path / "b.csv").write_text("text;label\nbad;down\n")
    with pytest.raises(UsageError, match=r"b.csv: its fields are separated by ';', those of .*a.csv by ','"):
        train(tmp_path, tmp_path)


def test_an_error_names_the_file_and_its_line(tmp_path):
    first, second, third = write_parts(tmp_path)
    third.write_text("text,label\nfine,up\nodd\n")
    for value in (tmp_path, f"{first},{second},{third}", f"{tmp_path}/part-?.csv"):
        with pytest.raises(UsageError, match=r"part-2.csv:3: it has 1 fields"):
            train(tmp_path, value)
        batches, source = predicted(value)
        assert list(source.places(batches[-1]))[-1] == f"{third}:3" and batches[-1]["text/0"][-1].as_py() is None
    third.write_text("text,label\nfine,up\nodd,\n")
    with pytest.raises(UsageError, match=r"part-2.csv:3: there is no label"):
        train(tmp_path, tmp_path)
    shutil.copy(third, tmp_path / "dev.csv")
    third.unlink()
    with pytest.raises(UsageError, match=r"dev.csv:3: there is no label"):
        train(tmp_path, f"{first},{second}", validation_file=f"{first},{tmp_path / 'dev.csv'}")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("none-*.csv", "no file matches it"),
        ("empty", "it has no file that can be read, it is empty"),
        ("notes", "it has no file that can be read, only README.md"),
        ("mixed", r"it has files of several formats: a.csv \(csv\) and b.jsonl \(jsonl\)"),
        ("mixed/a.csv,mixed/b.jsonl", "it has files of several formats"),
        ("mixed/a.csv,none.csv", "none.csv: there is no such file"),
        ("mixed/a.csv,mixed/*.csv", "a.csv: this file is named twice"),
        ("splits", "its files are named for several splits: test.csv, train.csv"),
    ],
)
def test_what_names_no_files_of_one_format_is_refused(tmp_path, monkeypatch, value, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("x")
    for name in ("mixed/a.csv", "mixed/b.jsonl", "splits/train.csv", "splits/test.csv"):
        write(tmp_path / name)
    for attempt in (lambda: train(tmp_path, value), lambda: texts_predicted(value)):
        with pytest.raises(UsageError, match=words) as caught:
            attempt()
        assert len(str(caught.value)) < 500


def test_a_file_of_rows_whose_name_begins_with_a_line_is_read(tmp_path):
    for value in (tmp_path, f"{tmp_path}/*.csv"):
        write(tmp_path / "_first.csv", ROWS[:3])
        write(tmp_path / "second.csv", ROWS[3:])
        assert texts_predicted(value) == [text for text, _ in ROWS]


def test_what_is_not_read_of_a_folder_is_reported(tmp_path):
    write_parts(tmp_path / "rows")
    (tmp_path / "rows" / "README.md").write_text("x")
    (tmp_path / "rows" / "old").mkdir()
    lines = train(tmp_path, tmp_path / "rows").report
    assert any(line.endswith("not read of this folder: README.md, old/") for line in lines)
    assert "not read of this folder: README.md, old/" in predicted(tmp_path / "rows")[1].notes


def test_the_same_bytes_under_other_names_are_the_same_input(tmp_path):
    write_parts(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    for path in (tmp_path / "after").iterdir():
        path.rename(path.with_name(path.name.replace("part", "piece")))
    sources = [data.open_splits(settings_of(tmp_path, train_file=str(tmp_path / each))) for each in ("before", "after")]
    assert sources[0]["train"].digest == sources[1]["train"].digest == predicted(tmp_path / "after")[1].digest
    (tmp_path / "after" / "piece-0.csv").rename(tmp_path / "after" / "piece-9.csv")  # another order
    assert predicted(tmp_path / "after")[1].digest != sources[0]["train"].digest


def test_the_same_bytes_read_in_another_way_are_another_input(tmp_path):
    content = 'text,label\n"fine, warm",up\nbad,down\n'
    (tmp_path / "a.csv").write_text(content)
    digests = {predicted(tmp_path / "a.csv", csv_quoting=each)[1].digest for each in ("minimal", "none")}
    assert len(digests) == 2


def test_a_data_set_that_was_saved_is_read_by_both_commands(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["fine", "bad"], "label": ["up", "down"]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "two")
    assert train(tmp_path, tmp_path / "one").train.num_features == 2
    assert texts_predicted(tmp_path / "one") == texts_predicted(tmp_path / "two") == ["fine", "bad"]
    with pytest.raises(UsageError, match="it has the splits train, test; .*--dataset_name"):
        train(tmp_path, tmp_path / "two")


def test_rows_in_training_and_validation_are_counted_over_all_files(tmp_path):
    write_parts(tmp_path)
    lines = train(tmp_path, tmp_path, validation_file=f"{tmp_path}/part-[01].csv").report
    assert any("part-[01].csv: 12 of 12 rows are training rows as well" in line for line in lines)
