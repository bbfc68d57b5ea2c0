"""A run or a prediction over several files that is killed goes on exactly, also when the files have other names."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from conftest import digests, predict, records
from ringtune.train.contract import EXIT_FINISHED


def parts_of(path: Path, folder: Path) -> Path:
    """Write a CSV file as three."""
    header, *lines = path.read_text().splitlines(keepends=True)
    folder.mkdir()
    for number, several in enumerate((lines[:40], lines[40:41], lines[41:])):
        (folder / f"part-{number}.csv").write_text(header + "".join(several))
    return folder


@pytest.mark.system
def test_a_killed_run_over_several_files_goes_on_from_other_names(workshop, reference, tmp_path):
    folder = parts_of(workshop.rows, tmp_path / "rows")
    done = workshop.train(2, tmp_path / "run", train_file=f"{folder}/part-*.csv", kill_at=7, save_steps=5)
    assert done.returncode != 0 and "3 files with 101 rows, read in this order" in done.output
    folder.rename(tmp_path / "moved")
    done = workshop.train(2, tmp_path / "run", train_file=tmp_path / "moved", save_steps=5)
    assert done.returncode == EXIT_FINISHED, done.output
    whole = reference(2, save_steps=5)
    assert digests(tmp_path / "run", 12) == digests(whole, 12)
    for event in ("rows", "train", "eval"):
        assert records(tmp_path / "run", event) == records(whole, event)


@pytest.mark.system
def test_a_killed_prediction_of_several_files_gives_the_output_of_one(workshop, tmp_path):
    draw = random.Random(0)
    rows = [(" ".join(draw.choices(["film", "good", "bad", "plot"], k=5)), "up") for _ in range(1500)]
    whole, model = tmp_path / "whole.csv", workshop.model
    whole.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    parts_of(whole, tmp_path / "parts")
    done = predict(2, model, whole, tmp_path / "whole.jsonl", keep_columns="all")
    assert done.returncode == EXIT_FINISHED, done.output
    done = predict(
        1, model, tmp_path / "parts", tmp_path / "parts.jsonl", keep_columns="all", fault=("kill", "12", "0")
    )
    assert done.returncode != 0, done.output
    (tmp_path / "parts").rename(tmp_path / "moved")
    done = predict(2, model, f"{tmp_path}/moved/*.csv", tmp_path / "parts.jsonl", keep_columns="all")
    assert done.returncode == EXIT_FINISHED, done.output
    assert "rows are predicted already" in done.output and "3 files with 1500 rows, read in this order" in done.output
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert json.loads((tmp_path / "parts.jsonl").read_text().splitlines()[0])["text"] == rows[0][0]
