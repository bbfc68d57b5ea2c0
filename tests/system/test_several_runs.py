"""``ringtune-train glue`` and ``sweep`` as a user starts them: real runs on rows in GLUE's form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import Done, records, run_command
from datasets import Dataset, DatasetDict

pytestmark = pytest.mark.system
TRAIN = (sys.executable, "-P", "-m", "ringtune.train.cli")
MOODS = ("a good film", "a dull plot", "the cast is great", "an awful story")


@pytest.fixture
def glue(tmp_path):
    """MNLI and STS-B with their own columns and splits, and a few rows each."""

    def rows(names, labels):
        return Dataset.from_dict({name: [*MOODS, *MOODS] for name in names} | {"label": labels, "idx": list(range(8))})

    mnli = {name: rows(("premise", "hypothesis"), [0, 1, 2, 0, 0, 1, 2, 2]) for name in ("train", "test_matched")}
    mnli |= {f"validation_{name}": mnli["train"] for name in ("matched", "mismatched")}
    DatasetDict(mnli).save_to_disk(tmp_path / "glue" / "mnli")
    stsb = rows(("sentence1", "sentence2"), [5.0, 1.5, 4.0, 0.0, 5.0, 1.0, 4.5, 0.5])
    DatasetDict({"train": stsb, "validation": stsb}).save_to_disk(tmp_path / "glue" / "stsb")
    return tmp_path / "glue"


def test_glue_trains_each_task_and_shows_its_scores_beside_the_published(workshop, glue, tmp_path):
    words = ["glue", "--model_name_or_path", workshop.model, "--tasks", "mnli,stsb", "--seeds", "1"]
    words += ["--dataset_name", glue, "--output_dir", tmp_path / "runs", "--max_steps", "2", "--max_seq_length", "16"]
    words += ["--cache_dir", workshop.cache, "--report_to", "none", "--disable_tqdm", "true"]
    done = run_command([*TRAIN, *map(str, words)])
    assert done.returncode == 0, done.output
    lines = [line.split() for line in done.output.splitlines() if line.split()[:1] in (["mnli"], ["stsb"])]
    assert [line[:2] for line in lines] == [
        ["mnli", "accuracy"],
        ["mnli", "accuracy_mm"],
        ["stsb", "pearson"],
        ["stsb", "spearmanr"],
    ]
    last = records(tmp_path / "runs" / "task_name=mnli,seed=42", "eval")[-1]
    assert lines[1][2:] == [f"{100 * last['eval_accuracy_mm']:.2f}", "0.00", "1", "of", "1", "84.10"]
    again = run_command([*TRAIN, *map(str, words), "--json"])  # nothing is left to do
    assert again.returncode == 0 and again.output.count("finished already") == 2
    found = json.loads(again.output[again.output.index("[\n") :])
    assert [row["num_finished"] for row in found] == [1, 1]


def test_a_sweep_that_is_interrupted_ends_with_75_and_goes_on_where_it_was(workshop, tmp_path):
    folder = tmp_path / "all"
    words = [
        "sweep",
        "--sweep",
        "seed=1,2",
        *workshop.arguments(folder, max_steps=30, save_steps=5, eval_strategy="no"),
    ]
    process = subprocess.Popen(
        [*TRAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    for line in process.stdout:
        if "30 steps of 12 rows" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the series and to its run
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 75, rest
    assert "run 2 of 2" not in rest and "Traceback" not in rest
    done: Done = run_command([*TRAIN, *words])
    assert done.returncode == 0, done.output
    assert "2 of 2" in done.output.splitlines()[-1]
