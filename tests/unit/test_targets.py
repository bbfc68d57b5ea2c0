"""What a prediction writes replaces no file that is read, and no file that is not an earlier one's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ringtune.train.contract import UsageError
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.parts import PartsFolder
from ringtune.train.predict.report import write_report


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev.csv").write_text("text,label\na,b\n")
    (tmp_path / "mine.py").write_text("def cost(labels, predictions): return 0.0\n")
    (tmp_path / "other.json").write_text('{"model": 1}')
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "dev.csv")
    (tmp_path / "link.csv").symlink_to("dev.csv")
    (tmp_path / "self").symlink_to(".")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "rows.csv").write_text("text\na\n")
    return tmp_path


def check(output="out.csv", *, read="dev.csv", model="model", **settings):
    config = PredictConfig(model, read, output, **settings)
    PartsFolder(Path(output)).check_output(config)


@pytest.mark.parametrize("output", ["dev.csv", "self/dev.csv", "link.csv", "hard.csv"])
@pytest.mark.parametrize("read", ["dev.csv", "d*.csv", "link.csv"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_read_is_refused_whatever_its_name(here, output, read, overwrite):
    (here / f".{output.rpartition('/')[2]}.job.json").write_text("{}")  # as if it were an earlier prediction's
    with pytest.raises(UsageError, match=f"--output {output}: it is read, as --input"):
        check(output, read=read, overwrite_output=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("out.csv", "it is the file of --output"),
        ("self/out.csv", "it is the file of --output"),
        ("dev.csv", "it is read, as --input"),
        ("link.csv", "it is read, as --input"),
        ("hard.csv", "it is read, as --input"),
        ("mine.py", "it is read, as --metrics"),
        (".out.csv.job.json", "what belongs to --output out.csv is kept there"),
        ("out.csv.parts/job.json", "what belongs to --output out.csv is kept there"),
        ("model", "it is a folder"),
        ("model/metrics.jsonl", "it is in the folder of --model_name_or_path"),
        ("nowhere/report.json", "its folder does not exist"),
        ("/dev/null", "it is no file"),
    ],
)
def test_a_report_that_would_replace_what_is_read_or_written_is_refused(here, report, reason, overwrite):
    (here / "out.csv.parts").mkdir()
    with pytest.raises(UsageError, match=f"--report {report}: {reason}"):
        check(report=report, metrics="accuracy,mine.py:cost", overwrite_output=overwrite)


def test_a_file_that_is_there_stays_unless_it_is_a_report_or_may_be_replaced(here):
    with pytest.raises(UsageError, match=r"--report other\.json: it exists; .*--overwrite_output replaces it"):
        check(report="other.json")
    check(report="other.json", overwrite_output=True)
    (here / "empty.json").touch()
    check(report="empty.json")
    for report in ("new.json", "model/new.json"):
        config = PredictConfig("model", "dev.csv", "out.csv", report=report)
        write_report(config, {"num_rows": 1}, None, [], [])
        check(report=report)  # the same command again
    (here / "new.json").write_text('{\n "model": "my own"}\n')
    with pytest.raises(UsageError, match="it exists"):
        check(report="new.json")


def test_an_output_in_the_folder_of_what_is_read_whole_is_an_earlier_predictions(here):
    with pytest.raises(UsageError, match="it is in the folder of --model_name_or_path"):
        check("model/metrics.jsonl", overwrite_output=True)
    (here / "model" / ".metrics.jsonl.job.json").write_text("{}")
    check("model/metrics.jsonl", overwrite_output=True)
    (here / "saved" / "data").mkdir(parents=True)
    (here / "saved" / "data" / "train.parquet").write_text("x")
    with pytest.raises(UsageError, match="it is in the folder of --input"):
        check("saved/data/train.parquet", read="saved", overwrite_output=True)


def test_a_folder_of_parts_with_files_of_others_is_refused(here):
    """It is emptied before a prediction, and removed after it."""
    with pytest.raises(UsageError, match=r"out\.jsonl\.parts is where its parts are kept, and has rows\.csv"):
        check("out.jsonl")
    (here / "out.jsonl.parts" / "rows.csv").rename(here / "out.jsonl.parts" / "stdin")
    check("out.jsonl")
    with pytest.raises(UsageError, match="--input out.jsonl.parts/stdin is where what belongs to it is kept"):
        check("out.jsonl", read="out.jsonl.parts/stdin", input_format="csv")


def test_what_comes_from_stdin_is_not_replaced(here):
    before = os.dup(0)
    try:
        with (here / "dev.csv").open() as stream:
            os.dup2(stream.fileno(), 0)
            with pytest.raises(UsageError, match="it is read, as --input"):
                check("dev.csv", read="-", input_format="csv", overwrite_output=True)
            check("out.csv", read="-", input_format="csv")
    finally:
        os.dup2(before, 0)
        os.close(before)
