"""Rows are read as they are or refused in one line."""

from __future__ import annotations

import errno
import logging

import numpy as np
import pytest
from conftest import make_tokenizer
from ringtune.train import config, data, tables, tokens
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.stop import StopWatch


def load(tmp_path, train, dev=None, name="train.csv", **settings):
    (tmp_path / name).write_bytes(train if isinstance(train, bytes) else train.encode())
    files = {"train_file": str(tmp_path / name)}
    if dev is not None:
        (tmp_path / f"dev_{name}").write_text(dev)
        files["validation_file"] = str(tmp_path / f"dev_{name}")
    regression = settings.pop("regression", None)
    return data.load(data.DataSource(**files, **settings), regression=regression, cache_dir=tmp_path / "cache")


GOOD = "text,label\nfine,up\nbad,down\n"


@pytest.mark.parametrize(
    ("train", "dev", "settings", "message"),
    [
        ("text,lable\nfine,up\n", None, {}, "no column 'label'; it has text, lable; the nearest is lable"),
        ("", None, {}, "the file is empty"),
        ("text,label\n", None, {}, "there are no rows"),
        ("text,label\n\nfilm,up,3\nplot,down,4\n", None, {}, "row 1: it has 3 fields, the header 2: text, label"),
        ('text,label\n"a\n""b""",up,\nbad,down,\n', None, {}, "row 1: it has 3 fields, the header 2"),
        ("text,text,label\nfilm,plot,up\n", None, {}, "train.csv: the header: it has 'text' twice; each name once"),
        ("text,label,label\nfilm,up,down\n", None, {"text_column_names": "text"}, "it has 'label' twice"),
        (GOOD, None, {"task_name": "stbs"}, "--task_name: stbs is no GLUE task; cola, sst2"),
        (GOOD, "text,label\nfine,up\nodd,sideways\n", {}, "row 2: the label 'sideways' does not occur"),
        ("text,label\n1,up\n2,down\n", None, {}, "column 'text' holds int64, not text; row 1 has 1"),
        (b"text,label\nfine,up\nb\xe4d,down\n", None, {}, "train.csv:3: byte 2 of the line, 0xe4, is not UTF-8"),
        ("text,label\nfine,0.5\nbad,nan\n", None, {}, "row 2: the rating in column 'label' is 'nan'"),
        ("text,label\nfine,0.5\nbad,inf\n", None, {}, "row 2: the rating in column 'label' is inf"),
        ("text,label\nfine,up\nbad,\n", None, {}, "row 2: the label in column 'label' is ''"),
        ("text,label\nfine,up\nbad,up\n", None, {}, "all rows have the label 'up'"),
        ("text,label\nfine,0.5\nbad,1\n", None, {"regression": False}, "holds numbers such as 0.5, not classes"),
        ('text,label\n"fine,up\nbad,down,more\nx', None, {}, "it cannot be read as csv"),
        (GOOD, None, {"text_column_names": "a,b,c"}, "names 3 columns"),
        (GOOD, None, {"text_column_names": "text,text"}, "two different ones"),
        ("text,label\nfine,1.5\nbad,1e300\n", None, {}, "row 2: the rating in column 'label' is 1e+300"),
        ("text,label\nfine,x\n", None, {"regression": True}, "row 1: the rating in column 'label' is 'x'"),
        ('text,label\n"fine\nfilm",up\nbad,down,more\n', None, {}, "it cannot be read as csv"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path, train, dev, settings, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, train, dev, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("Not enough disk space. Needed: Unknown size")],
    ids=["while writing", "before"],
)
def test_a_full_cache_is_not_the_files_fault(tmp_path, monkeypatch, words):
    """Of a disk that is really full `datasets` raises the one or the other."""

    def full(*arguments, **options):
        raise words

    monkeypatch.setattr("datasets.load_dataset", full)
    with pytest.raises(UsageError, match="--cache_dir .*cache: there is no room left; room for .*train.csv"):
        load(tmp_path, GOOD)


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
    with pytest.raises(UsageError, match="row 2: the rating in column 'label' is None"):
        load(tmp_path, '{"text": "a", "label": 0.5}\n{"text": "b", "label": null}\n', name="t.jsonl")


@pytest.mark.parametrize("regression", [None, True])
@pytest.mark.parametrize("label", ['["x"]', "[1]", "[0.5]", '{"x": 1}', "null", '"2020-01-01T00:00:00"'])
def test_labels_that_are_no_labels_are_refused_in_one_line(tmp_path, label, regression):
    """What nests numbers is not a number."""
    with pytest.raises(UsageError, match=r"column 'label' (holds|is)"):
        load(tmp_path, f'{{"text": "a", "label": {label}}}\n' * 2, name="t.jsonl", regression=regression)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbftext,label\nfine film,up\nbad,down\n", b"text,label\r\nfine film,up\r\nbad,down\r\n"],
    ids=["BOM", "CRLF"],
)
def test_files_of_other_systems_give_the_same_rows(tmp_path, content):
    splits, task = load(tmp_path, content)
    assert splits.train["text"][:] == ["fine film", "bad"] and task.label_names == ("down", "up")


def test_quoted_texts_keep_their_lines_and_quotes(tmp_path):
    splits, _ = load(tmp_path, 'text,label\n"fine, ""warm""\nfilm",up\nbad,down\n')
    assert splits.train["text"][:] == ['fine, "warm"\nfilm', "bad"]


def test_a_name_that_is_there_twice_and_not_used_does_no_harm(tmp_path):
    splits, task = load(tmp_path, "text,label,note,note,,\nfine,up,1,2,,\nbad,down,1,2,,\n", text_column_names="text")
    assert task.text_columns == ("text",) and splits.train["text"][:] == ["fine", "bad"]


def test_texts_that_look_like_missing_values_stay_texts(tmp_path):
    splits, _ = load(tmp_path, "text,label\nNA,up\nnull,down\nNone,up\n")
    assert splits.train["text"][:] == ["NA", "null", "None"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "sentence1,sentence2,label\na,b,0\nc,d,1\n"),
        ("t.tsv", "sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t1\n"),
        ("t.jsonl", '{"sentence1":"a","sentence2":"b","label":0}\n{"sentence1":"c","sentence2":"d","label":1}\n'),
    ],
)
def test_every_format_gives_the_same_task(tmp_path, name, content):
    _, task = load(tmp_path, content, name=name)
    assert task == data.Task("classification", ("0", "1"), ("sentence1", "sentence2"), "label")


def test_parquet_and_boolean_labels_work(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b"], "label": [True, False]}), tmp_path / "t.parquet")
    _, task = load(tmp_path, (tmp_path / "t.parquet").read_bytes(), name="t.parquet")
    assert task.label_names == ("False", "True")


def test_changed_content_under_the_same_name_is_read_anew(tmp_path):
    first, _ = load(tmp_path, GOOD)
    second, _ = load(tmp_path, GOOD + "deft,up\n")
    assert (len(first.train), len(second.train)) == (2, 3)
    assert first.digest != second.digest


def table(tmp_path, texts, labels=None, **settings):
    tokenizer = make_tokenizer(tmp_path / "model")
    rows = "".join(
        f"{text},{label}\n" for text, label in zip(texts, labels or ["up", "down"] * len(texts), strict=False)
    )
    splits, task = load(tmp_path, "text,label\n" + rows)
    tokens.write(
        tmp_path / "table", splits.train, task, tokenizer, 16, settings.get("stop", lambda: False), lambda done: None
    )
    return tokens.TokenTable.open(tmp_path / "table"), tokenizer


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_are_those_of_the_tokenizers_own_padding(tmp_path, side, monkeypatch):
    texts = ["the film", "a very good story " * 6, "odd", "great scene was warm"]
    monkeypatch.setattr("transformers.BertTokenizerFast.padding_side", side)
    found, tokenizer = table(tmp_path, texts)
    for rows in ([0], [2, 0], [3, 1, 2, 0], [1, 1]):
        expected = tokenizer(
            [texts[row].strip() for row in rows], truncation=True, max_length=16, padding=True, return_tensors="pt"
        )
        batch = found.batch(rows)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert batch[name].tolist() == expected[name].tolist()
    assert found.batch([0, 1])["labels"].tolist() == [1, 0]


def test_a_stop_while_tokenising_leaves_no_table(tmp_path):
    with pytest.raises(StopRequested):
        table(tmp_path, ["a film", "odd"], stop=lambda: True)
    assert not (tmp_path / "table").exists()
    assert not list(tmp_path.glob(".table*"))


def test_a_damaged_table_is_noticed_and_made_again(tmp_path):
    found, _ = table(tmp_path, ["a film", "odd"])
    ids = found.batch([0, 1])["input_ids"].numpy().copy()
    (tmp_path / "table" / "ids").write_bytes(b"")
    assert "ids has 0 of" in str(tokens.damage(tmp_path / "table"))
    again, _ = table(tmp_path, ["a film", "odd"])
    assert np.array_equal(again.batch([0, 1])["input_ids"].numpy(), ids)


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


def test_glue_tasks_are_read_from_their_repository_with_all_their_splits(tmp_path, monkeypatch):
    glue_like(tmp_path, monkeypatch)
    tokenizer = make_tokenizer(tmp_path / "model")
    splits, task = data.load(data.DataSource(task_name="mrpc"), regression=None, cache_dir=tmp_path)
    names = ("not_equivalent", "equivalent")
    assert task == data.Task("classification", names, ("sentence1", "sentence2"), "label")
    tokens.write(tmp_path / "t", splits.train, task, tokenizer, 16, lambda: False, lambda done: None)
    assert tokens.TokenTable.open(tmp_path / "t").labels.tolist() == [
        0,
        1,
        0,
    ]  # the numbers of the names, as on the hub
    assert splits.test["sentence1"][0] == "test 0"
    splits, task = data.load(data.DataSource(task_name="mnli"), regression=None, cache_dir=tmp_path)
    assert {suffix: rows["premise"][0] for suffix, rows in splits.validation.items()} == {
        "": "validation_matched 0",
        "mm": "validation_mismatched 0",
    }
    assert task.text_columns == ("premise", "hypothesis") and task.num_labels == 3
    splits, task = data.load(data.DataSource(task_name="stsb"), regression=None, cache_dir=tmp_path)
    assert (task.kind, task.num_labels) == ("regression", 1)
    with pytest.raises(UsageError, match="sst2: it has no train split, only validation"):
        data.load(data.DataSource(task_name="sst2"), regression=None, cache_dir=tmp_path)
    with pytest.raises(UsageError, match="--task_name: mprc is no GLUE task; .*did you mean mrpc"):
        data.load(data.DataSource(task_name="mprc"), regression=None, cache_dir=tmp_path)
    named = data.DataSource(dataset_name=str(tmp_path), dataset_config_name="mrpc")
    assert data.load(named, regression=None, cache_dir=tmp_path)[1].label_names == names


class OtherHost:
    """What a rank without a tokeniser of its own is told by the ranks of two hosts."""

    local_rank, rank = 1, 3

    def __init__(self, told):
        self.told = told

    def work_together(self, work, stop, name):
        return work()

    def gather_values(self, value, name):
        return [self.told, value]


def test_a_rank_opens_the_tables_of_its_own_host_wherever_that_keeps_them(tmp_path, monkeypatch):
    train = tmp_path / "t.csv"
    train.write_text(GOOD)
    settings = config.TrainConfig(model_name_or_path="m", train_file=str(train), max_seq_length=16)
    tokenizer = make_tokenizer(tmp_path / "model")
    told = {}
    for host in ("a", "b"):
        monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path / host))
        told[host] = tables._tokenise(settings, tokenizer, StopWatch(), shown=False)
        assert not list((tmp_path / host / "raw").iterdir())
    found = tables.prepare(settings, tokenizer, OtherHost(told["a"]), StopWatch())
    assert found.train.folder.is_relative_to(tmp_path / "b") and found.train.num_rows == 2


def test_ranks_of_two_hosts_that_share_a_cache_have_a_scratch_folder_each(tmp_path):
    assert tables._scratch(tmp_path) != tables._scratch(tmp_path)  # though their process numbers may be the same
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--cache_dir .*file: Not a directory"):
        tables._scratch(tmp_path / "file" / "raw")


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
