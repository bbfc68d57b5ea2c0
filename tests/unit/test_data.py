"""Rows are read as they are or refused in one line."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer
from ringtune.train import config, data, publish, rows, tables, tokens
from ringtune.train.columns import Columns
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.stop import StopFlag
from ringtune.train.task import Task
from ringtune.train.task.classification import Classification


class Alone:
    """The only rank of a job."""

    rank = local_rank = 0

    def work_together(self, work, stop, name):
        return work()

    def gather_values(self, value, name):
        return [value]


def settings_of(tmp_path, **changes) -> config.TrainConfig:
    return config.TrainConfig("m", cache_dir=str(tmp_path / "cache"), max_seq_length=16, **changes)


def prepare(tmp_path, settings, stop=None, comm=None) -> tables.Tables:
    return tables.prepare(settings, make_tokenizer(tmp_path / "model"), comm or Alone(), stop or StopFlag())


def load(tmp_path, train, dev=None, name="train.csv", **settings) -> tables.Tables:
    (tmp_path / name).write_bytes(train if isinstance(train, bytes) else train.encode())
    files = {"train_file": str(tmp_path / name)}
    if dev is not None:
        (tmp_path / f"dev_{name}").write_text(dev)
        files["validation_file"] = str(tmp_path / f"dev_{name}")
    return prepare(tmp_path, settings_of(tmp_path, **files, **settings))


def task(*arguments, **settings) -> Task:
    return load(*arguments, **settings).task


def texts(path: Path) -> list[str]:
    """Return the texts that training reads of a file."""
    sources = data.open_splits(config.TrainConfig("m", train_file=str(path)))
    return [
        each for batch in sources["train"].read(Columns(("text",), "label")) for each in batch["text/0"].to_pylist()
    ]


GOOD = "text,label\nfine,up\nbad,down\n"


@pytest.mark.parametrize(
    ("train", "dev", "settings", "message"),
    [
        ("text,lable\nfine,up\n", None, {}, "no column 'label'; it has text, lable; the nearest is lable"),
        ("", None, {}, "the file is empty"),
        ("text,label\n", None, {}, "there are no rows"),
        ("text,label\n\nfilm,up,3\nplot,down,4\n", None, {}, "train.csv:3: it has 3 fields, the header 2"),
        ('text,label\n"a\n""b""",up,\nbad,down,\n', None, {}, "train.csv:2: it has 3 fields, the header 2"),
        ("text,text,label\nfilm,plot,up\n", None, {}, "train.csv: the header: it has 'text' twice; each name once"),
        ("text,label,label\nfilm,up,down\n", None, {"text_column_names": "text"}, "it has 'label' twice"),
        (GOOD, None, {"task_name": "stbs"}, "--task_name: stbs is no GLUE task; cola, sst2"),
        (GOOD, "text,label\nfine,up\nodd,sideways\n", {}, "dev_train.csv:3: the label 'sideways' does not occur"),
        (b"text,label\nfine,up\nb\xe4d,down\n", None, {}, "train.csv:3: byte 0xe4 in column 'text' is not UTF-8"),
        ("text,label\nfine,up\nbad\n", None, {}, "train.csv:3: it has 1 fields, the header 2"),
        ("text,label\nfine,0.5\nbad,nan\n", None, {}, "train.csv:3: the rating in column 'label' is 'nan'"),
        ("text,label\nfine,0.5\nbad,inf\n", None, {}, "train.csv:3: the rating in column 'label' is 'inf'"),
        ("text,label\nfine,up\nbad,\n", None, {}, "train.csv:3: there is no label in column 'label'"),
        ("text,label\nfine,up\nbad,up\n", None, {}, "all rows have the label 'up'"),
        ("text,label\nfine,0.5\nbad,1\n", None, {"regression": False}, "holds numbers such as '0.5', not classes"),
        ('text,label\n"fine,up\nbad,down,more\nx', None, {}, "it cannot be read as csv"),
        (GOOD, None, {"text_column_names": "a,b,c"}, "names 3 columns"),
        (GOOD, None, {"text_column_names": "text,text"}, "two different ones"),
        ("text,label\nfine,1.5\nbad,1e300\n", None, {}, "train.csv:3: the rating in column 'label' is '1e300'"),
        ("text,label\nfine,x\n", None, {"regression": True}, "train.csv:2: the rating in column 'label' is 'x'"),
        ('text,label\n"fine\nfilm",up\nbad,down,more\n', None, {}, "train.csv:4: it has 3 fields, the header 2"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, train, dev, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, train, dev, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_cache_is_not_the_files_fault(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows.pa, "OSFile", full)
    with pytest.raises(UsageError, match="--cache_dir .*cache: there is no room left; room for the rows"):
        load(tmp_path, GOOD)
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def test_libraries_add_no_words_of_their_own_to_an_error(tmp_path):
    said: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = said.append
    logging.getLogger("datasets").addHandler(listener)
    try:
        with pytest.raises(UsageError, match="cannot be read as parquet"):
            load(tmp_path, "torn", name="t.parquet")
    finally:
        logging.getLogger("datasets").removeHandler(listener)
    assert not said


def test_a_nan_rating_in_json_is_refused(tmp_path):
    with pytest.raises(UsageError, match="t.jsonl:2: the rating in column 'label' is None"):
        load(tmp_path, '{"text": "a", "label": 0.5}\n{"text": "b", "label": null}\n', name="t.jsonl")


@pytest.mark.parametrize("regression", [None, True])
@pytest.mark.parametrize("label", ['["x"]', "[1]", "[0.5]", '{"x": 1}', "null", '"2020-01-01T00:00:00"'])
def test_labels_that_are_no_labels_are_refused_in_one_line(tmp_path, label, regression):
    """What nests numbers is not a number."""
    with pytest.raises(
        UsageError,
        match=r"there is no label in column 'label'|the rating in column 'label' is|the label '2020|all rows have",
    ):
        load(tmp_path, f'{{"text": "a", "label": {label}}}\n' * 2, name="t.jsonl", regression=regression)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbftext,label\nfine film,up\nbad,down\n", b"text,label\r\nfine film,up\r\nbad,down\r\n"],
    ids=["BOM", "CRLF"],
)
def test_files_of_other_systems_give_the_same_rows(tmp_path, content):
    assert task(tmp_path, content).classes == ("down", "up")
    assert texts(tmp_path / "train.csv") == ["fine film", "bad"]


def test_quoted_texts_keep_their_lines_and_quotes(tmp_path):
    load(tmp_path, 'text,label\n"fine, ""warm""\nfilm",up\nbad,down\n')
    assert texts(tmp_path / "train.csv") == ['fine, "warm"\nfilm', "bad"]


def test_a_name_that_is_there_twice_and_not_used_does_no_harm(tmp_path):
    found = load(tmp_path, "text,label,note,note,,\nfine,up,1,2,,\nbad,down,1,2,,\n", text_column_names="text")
    assert found.task.columns.text == ("text",) and texts(tmp_path / "train.csv") == ["fine", "bad"]


def test_texts_that_look_like_missing_values_stay_texts(tmp_path):
    load(tmp_path, "text,label\nNA,up\nnull,down\nNone,up\n007,up\n")
    assert texts(tmp_path / "train.csv") == ["NA", "null", "None", "007"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("up", "down", " up"), ("down", "up")),
        (("10", "9", "-1"), ("-1", "9", "10")),
        (("01", "02", "1"), ("01", "1", "02")),
        (("true", "FALSE", "True"), ("False", "True")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("1e3", "2f4", "x"), ("1e3", "2f4", "x")),
        (("0.5", "1", "3"), None),
        (("1e-3", "2", "3"), None),
    ],
)
def test_what_a_label_column_is_follows_from_the_whole_column(tmp_path, labels, classes):
    rows = "".join(f"film,{label}\n" for label in labels)
    found = task(tmp_path, "text,label\n" + rows)
    assert (found.kind, getattr(found, "classes", None)) == ("classification" if classes else "regression", classes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "sentence1,sentence2,label\na,b,0\nc,d,1\n"),
        ("t.tsv", "sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t1\n"),
        ("t.jsonl", '{"sentence1":"a","sentence2":"b","label":0}\n{"sentence1":"c","sentence2":"d","label":1}\n'),
    ],
)
def test_every_format_gives_the_same_task(tmp_path, name, content):
    assert task(tmp_path, content, name=name) == Classification(
        Columns(("sentence1", "sentence2"), "label"), ("0", "1")
    )


def test_parquet_and_boolean_labels_work(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b"], "label": [True, False]}), tmp_path / "t.parquet")
    assert task(tmp_path, (tmp_path / "t.parquet").read_bytes(), name="t.parquet").classes == ("False", "True")


def test_changed_content_under_the_same_name_is_read_again(tmp_path):
    first = load(tmp_path, GOOD)
    second = load(tmp_path, GOOD + "deft,up\n")
    assert (first.train.num_features, second.train.num_features) == (2, 3)
    assert first.digest != second.digest


def test_rows_are_read_once_and_their_files_only_hashed_after_that(tmp_path, monkeypatch):
    reads = []
    original = data.reader.LineFile.rows
    monkeypatch.setattr(data.reader.LineFile, "rows", lambda self: (reads.append(self.where), original(self))[1])
    first = load(tmp_path, GOOD, GOOD)
    assert sorted(Path(each).name for each in reads) == ["dev_train.csv", "train.csv"]
    again = load(tmp_path, GOOD, GOOD)
    assert len(reads) == 2 and again.task == first.task and again.report == first.report


def test_the_columns_are_reported_in_one_line(tmp_path):
    found = load(tmp_path, "id,text,label\n1,fine,up\n2,bad,down\n")
    assert found.report.endswith("train.csv: text: column text; label: column label, 2 classes; not read: id")


def table(tmp_path, several, **settings):
    """Return the features of texts, and the tokenizer."""
    lines = "".join(f"{text},{label}\n" for text, label in zip(several, ["up", "down"] * len(several), strict=False))
    (tmp_path / "t.csv").write_text("text,label\n" + lines)
    found = prepare(tmp_path, settings_of(tmp_path, train_file=str(tmp_path / "t.csv")), **settings)
    return found.train, make_tokenizer(tmp_path / "model")


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_are_those_of_the_tokenizers_own_padding(tmp_path, side, monkeypatch):
    several = ["the film", "a very good story " * 6, "odd", "great scene was warm"]
    monkeypatch.setattr("transformers.BertTokenizerFast.padding_side", side)
    found, tokenizer = table(tmp_path, several)
    for chosen in ([0], [2, 0], [3, 1, 2, 0], [1, 1]):
        expected = tokenizer(
            [several[row].strip() for row in chosen], truncation=True, max_length=16, padding=True, return_tensors="pt"
        )
        batch = tokens.collate(found, chosen)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert batch[name].tolist() == expected[name].tolist()
    assert tokens.collate(found, [0, 1])["labels"].tolist() == [1, 0]


def test_a_stop_while_tokenising_leaves_no_table(tmp_path):
    stop = StopFlag()
    stop.set()
    with pytest.raises(StopRequested):
        table(tmp_path, ["a film", "odd"], stop=stop)
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def cached(tmp_path) -> list[Path]:
    """Return the files of the only folder of features in the cache."""
    (folder,) = (tmp_path / "cache" / "tokens").iterdir()
    return sorted(folder.iterdir())


def spoil_by_a_flipped_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SPOIL = {"flipped": spoil_by_a_flipped_bit, "emptied": lambda path: path.write_bytes(b""), "gone": Path.unlink}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
def test_damage_to_any_file_of_the_cached_features_is_noticed_and_they_are_made_again(tmp_path, spoil):
    found, _ = table(tmp_path, ["a film", "odd"])
    ids = tokens.collate(found, [0, 1])["input_ids"].numpy().copy()
    names = [each.name for each in cached(tmp_path)]
    assert {"train.input_ids", "train.offsets", "train.labels", "task.json", "manifest.json"} <= set(names)
    for number in range(len(names)):
        path = cached(tmp_path)[number]
        spoil(path)
        assert publish.verify_folder(path.parent, ("task.json",)) is not None
        again, _ = table(tmp_path, ["a film", "odd"])
        assert np.array_equal(tokens.collate(again, [0, 1])["input_ids"].numpy(), ids)
        assert publish.verify_folder(path.parent, ("task.json",)) is None and len(cached(tmp_path)) == len(names)


def glue_like(folder, monkeypatch):
    """Put data sets into a folder that is laid out as GLUE's repository is on the hub."""
    from datasets import ClassLabel, Dataset, Features, Value

    layouts = {
        "mrpc": (
            ("sentence1", "sentence2"),
            ("train", "validation", "test"),
            ClassLabel(names=["not_equivalent", "equivalent"]),
        ),
        "mnli": (
            ("premise", "hypothesis"),
            ("train", "validation_matched", "validation_mismatched", "test_matched"),
            ClassLabel(names=["entailment", "neutral", "contradiction"]),
        ),
        "stsb": (("sentence1", "sentence2"), ("train", "validation"), Value("float32")),
        "sst2": (("sentence",), ("validation",), ClassLabel(names=["negative", "positive"])),
    }
    card = ["---", "configs:"]
    for name, (columns, splits, label) in layouts.items():
        card += [f"- config_name: {name}", "  data_files:"]
        features = Features({**dict.fromkeys(columns, Value("string")), "label": label, "idx": Value("int32")})
        for number, split in enumerate(splits):
            labels = [-1, -1, -1] if split.startswith("test") else [0, 1, 0]  # as GLUE hides them
            rows = {
                **{each: [f"{split} {row}" for row in range(3)] for each in columns},
                "label": labels,
                "idx": [7, 8, 9],
            }
            path = f"{name}/{split}-{number}.parquet"
            (folder / name).mkdir(parents=True, exist_ok=True)
            Dataset.from_dict(rows, features=features).to_parquet(folder / path)
            card += [f"  - split: {split}", f"    path: {path}"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    monkeypatch.setattr(data, "GLUE_REPOSITORY", str(folder))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")


def first_texts(settings) -> dict[str, str]:
    """Return the first text of each split."""
    sources = data.open_splits(settings)
    columns = data.choose_columns(settings, sources)
    return {split: next(source.read(columns[split]))["text/0"][0].as_py() for split, source in sources.items()}


def test_glue_tasks_are_read_from_their_repository_with_all_their_splits(tmp_path, monkeypatch):
    glue_like(tmp_path / "glue", monkeypatch)
    mrpc = settings_of(tmp_path, task_name="mrpc")
    found = prepare(tmp_path, mrpc)
    names = ("not_equivalent", "equivalent")
    assert found.task == Classification(Columns(("sentence1", "sentence2"), "label"), names)
    # the numbers of the names, as on the hub
    assert found.train.feature_columns["labels"].tolist() == [0, 1, 0]
    assert first_texts(mrpc)["test"] == "test 0" and found.test.num_features == 3
    mnli = settings_of(tmp_path, task_name="mnli")
    found = prepare(tmp_path, mnli)
    assert set(found.validation) == {"", "mm"}
    assert first_texts(mnli)["validation"] == "validation_matched 0"
    assert first_texts(mnli)["validationmm"] == "validation_mismatched 0"
    assert found.task.columns.text == ("premise", "hypothesis") and found.task.width == 3
    found = prepare(tmp_path, settings_of(tmp_path, task_name="stsb"))
    assert (found.task.kind, found.task.width) == ("regression", 1)
    with pytest.raises(UsageError, match="sst2: it has no train split, only validation"):
        prepare(tmp_path, settings_of(tmp_path, task_name="sst2"))
    with pytest.raises(UsageError, match="--task_name: mprc is no GLUE task; .*did you mean mrpc"):
        prepare(tmp_path, settings_of(tmp_path, task_name="mprc"))
    named = settings_of(tmp_path, dataset_name=str(tmp_path / "glue"), dataset_config_name="mrpc")
    assert prepare(tmp_path, named).task.classes == names


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path):
    from datasets import Dataset, DatasetDict

    content = Dataset.from_dict({"text": ["fine", "bad"], "label": ["up", "down"]})
    DatasetDict({"train": content, "validation": content}).save_to_disk(tmp_path / "several")
    content.save_to_disk(tmp_path / "one")
    for name, splits in (("several", {""}), ("one", set())):
        found = prepare(tmp_path, settings_of(tmp_path, dataset_name=str(tmp_path / name)))
        assert found.task.classes == ("down", "up") and set(found.validation) == splits


class OtherHost(Alone):
    """A rank that does not tokenise; the ranks of two hosts that do have reported what they made."""

    local_rank, rank = 1, 3

    def __init__(self, reported):
        self.reported = reported

    def gather_values(self, value, name):
        return [self.reported, value]


def test_a_rank_opens_the_tables_of_its_own_host_wherever_that_keeps_them(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(GOOD)
    settings = config.TrainConfig("m", train_file=str(tmp_path / "t.csv"), max_seq_length=16)
    tokenizer = make_tokenizer(tmp_path / "model")
    reported = {}
    for host in ("a", "b"):
        monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path / host))
        reported[host] = tables._prepare(settings, tokenizer, StopFlag(), shown=False)
    found = tables.prepare(settings, tokenizer, OtherHost(reported["a"]), StopFlag())
    ids = found.train.token_columns["input_ids"]
    assert Path(ids.filename).is_relative_to(tmp_path / "b") and found.train.num_features == 2


def test_a_cache_that_is_no_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UsageError, match=r"--cache_dir .*cache: Not a directory"):
        load(tmp_path, GOOD)


def test_a_hub_that_cannot_be_reached_is_said_in_one_line_with_what_to_do(tmp_path):
    import os
    import subprocess
    import sys

    flags = ["--output_dir", str(tmp_path / "run"), "--cache_dir", str(tmp_path / "cache")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for more, words in (
        (["--model_name_or_path", "bert-base-cased", "--task_name", "mrpc"], "the hub gave no tokenizer"),
        (
            ["--model_name_or_path", str(make_saved(tmp_path)), "--task_name", "mrpc"],
            "data set nyu-mll/glue/mrpc: it cannot be",
        ),
    ):
        command = [sys.executable, "-m", "ringtune.train.cli", *flags, *more]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def make_saved(folder):
    make_tokenizer(folder / "model")
    return folder / "model"
