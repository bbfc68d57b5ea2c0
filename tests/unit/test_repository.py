"""Data sets by name or saved to disk are read with all their splits."""

from __future__ import annotations

import pytest
from families import write_model
from preparing import prepare, settings_of
from ringtune.train import arrow_rows, data
from ringtune.train.columns import Columns
from ringtune.train.contract import UsageError
from ringtune.train.task.classification import Classification
from tiny import make_tokenizer


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
    """Return a model's folder; only the data set is missing."""
    tokenizer = make_tokenizer(folder / "model")
    return write_model(folder / "model", "bert", vocab_size=len(tokenizer))


def test_a_data_set_is_known_by_its_rows_and_features_alone(tmp_path):
    """Not by datasets' fingerprint, which is of how it was made, and not by how it is cut into files."""
    from datasets import ClassLabel, Dataset, concatenate_datasets, load_from_disk

    def digest(rows, name="rows"):
        rows.save_to_disk(tmp_path / name, num_shards=2)
        return arrow_rows.open_data_set(load_from_disk(tmp_path / name), "d").digest

    columns = {"text": ["a", "b", None, "d"] * 5000, "label": [0, 1, 1, 0] * 5000}
    rows = Dataset.from_dict(columns)
    first = digest(rows)
    joined = concatenate_datasets([rows.select(range(9)), rows.select(range(9, 20000))])
    same = [Dataset.from_dict(columns), joined, rows.map(lambda row: row, new_fingerprint="another")]
    assert {digest(each, f"same-{number}") for number, each in enumerate(same)} == {first}
    odd = Dataset.from_dict({"text": ["a"] * 16, "ok": [None, True] * 8, "number": [None, *range(15)]})
    alike = Dataset.from_dict({"text": ["a"] * 3, "ok": [None, True, None], "number": [None, 0, 1]})
    assert digest(odd.select(range(3)), "part") == arrow_rows.open_data_set(alike, "d").digest
    assert arrow_rows.open_data_set(odd.select(range(3)), "d").digest == arrow_rows.open_data_set(alike, "d").digest
    names = [rows.cast_column("label", ClassLabel(names=each)) for each in (["down", "up"], ["up", "down"])]
    others = [Dataset.from_dict({**columns, "text": ["a", "b", None, "c"] * 5000}), rows.select(range(19999)), *names]
    assert len({first, *(digest(each, f"other-{number}") for number, each in enumerate(others))}) == 5
    # Files that are replaced behind the same fingerprint
    for path in (tmp_path / "other-0").glob("*.arrow"):
        path.replace(tmp_path / "rows" / path.name)
    assert arrow_rows.open_data_set(load_from_disk(tmp_path / "rows"), "d").digest != first
