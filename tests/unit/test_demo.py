"""The demo's rows are what the README says."""

from __future__ import annotations

import csv

from ringtune.launch import demo
from ringtune.train.contract import cache_folder


def test_the_demo_has_9000_training_rows_and_1605_others_none_shared():
    folder = demo.fetch(cache_folder())
    rows = {}
    for name in ("train", "dev"):
        with (folder / f"{name}.csv").open(newline="") as stream:
            rows[name] = list(csv.reader(stream))[1:]
    assert (len(rows["train"]), len(rows["dev"])) == (9_000, 1_605)
    assert {label for _, label in rows["train"]} == {"positive", "negative"}
    assert (folder / "model" / "model.safetensors").exists()


def test_the_mixed_rows_are_those_of_all_four_sets():
    with (demo.fetch(cache_folder()) / demo.MIXED_FILE).open(newline="") as stream:
        assert len(list(csv.reader(stream))) - 1 == 10_605 + 3_708 + 4_200 + 5_190
