"""A fault on one rank ends the job on all, and says whose it was."""

from __future__ import annotations

import csv
import json
import re
import sys

import numpy as np
import pytest
from conftest import FAULTS, ranks, records, run_command, script
from ringtune.train.checkpoint import list_checkpoints
from ringtune.train.order import DataOrder
from ringtune.train.packing import Packer
from ringtune.train.shards import deal_packed
from transformers import AutoTokenizer

pytestmark = pytest.mark.parallel


def test_a_failing_rank_takes_the_job_down_with_its_traceback_once(workshop, tmp_path):
    done = workshop.train(3, tmp_path / "run", fault=("raise", "4", "1"))
    assert done.returncode == 1, done.output
    assert "rank 1 of 3 (host " in done.output
    assert done.output.count("RuntimeError: planted failure") == 1
    assert done.output.count("Traceback") == 1


@pytest.mark.parametrize("gloo", [pytest.param(False, marks=pytest.mark.long), True], ids=["mpirun", "gloo"])
def test_a_rank_that_hangs_ends_the_job_by_itself_named_by_horovod(workshop, tmp_path, gloo):
    """Nobody set a limit; only, the one that ringtune sets is short here."""
    words = [str(FAULTS), "hang", "4", "1", "--", *workshop.arguments(tmp_path / "run", save_steps=1)]
    launcher = [script("horovodrun"), "--gloo", "-np", "3", sys.executable]
    done = run_command([*launcher, *words], limit_s=120) if gloo else ranks(3, *words, limit_s=120)
    assert done.returncode not in (0, 75), done.output
    assert re.search(r"Missing ranks:\n.*1!: \[", done.output), done.output
    assert list_checkpoints(tmp_path / "run")[0][0] == 3


def test_a_loss_that_is_not_finite_stops_all_ranks_naming_step_rank_and_rows(workshop, tmp_path):
    done = workshop.train(2, tmp_path / "run", fault=("nan", "17"), save_steps=1, dropout=0.0)
    assert done.returncode == 1, done.output
    found = re.search(
        r"step (\d+): the loss is not finite; rank (\d): nan in the shard of rows \[(.*)\]; no parameter", done.output
    )
    assert found, done.output
    number, rank, rows = int(found[1]), int(found[2]), [int(row) for row in found[3].split(",")]
    order = DataOrder(42, 101, 12)
    assert number == next(step for step in range(1, 10) if 17 in order.rows(step - 1))
    tokenizer = AutoTokenizer.from_pretrained(workshop.model)
    with workshop.rows.open(newline="") as stream:
        lengths = np.array(
            [len(tokenizer(row["text"], max_length=32, truncation=True).input_ids) for row in csv.DictReader(stream)]
        )
    chosen = order.rows(number - 1)
    hidden_size = json.loads((workshop.model / "config.json").read_text())["hidden_size"]
    costs = Packer(hidden_size, padding_token=None, takes_types=True).costs(lengths[chosen])
    shards = deal_packed(chosen, costs, 2)
    assert rows == shards[rank].tolist() and 17 in rows
    assert done.output.count("as before") == 2 and "changed\n" not in done.output
    assert list_checkpoints(tmp_path / "run")[0][0] == number - 1
    assert done.output.count("not finite") == 1 and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("mode", "wire", "factor"), [("fast", "fp16", 1e37), ("fast", "none", 1e37), ("exact", "none", 1e37)]
)
def test_a_gradient_that_is_not_finite_though_the_loss_is_changes_nothing_on_any_rank(
    workshop, tmp_path, mode, wire, factor
):
    """As the square of a norm in fp32, what the loss still is overflows."""
    done = workshop.train(2, tmp_path / "run", fault=("loud", str(factor)), mode=mode, compression=wire)
    assert done.returncode == 1, done.output
    assert done.output.count("step 1: the gradient is not finite though the loss is; no parameter was changed") == 1
    assert done.output.count("as before") == 2 and "changed\n" not in done.output
    assert "Traceback" not in done.output and list_checkpoints(tmp_path / "run") == []


def test_an_overflow_of_fp16_on_one_rank_is_agreed_by_all_and_changes_nothing(workshop, tmp_path):
    """A scaler that left out the update on one rank only would make replicas differ from then on."""
    words = {"fp16": "true", "dropout": 0.0, "max_steps": 6}
    done = workshop.train(2, tmp_path / "run", fault=("overflow", "3", "1"), **words)
    assert done.returncode == 0, done.output
    assert [each["updated"] for each in records(tmp_path / "run", "train")] == [True, True, False, True, True, True]
    found = re.findall(r"rank (\d) before step (\d): (\w+) (\w+)", done.output)
    states = {(int(rank), int(step)): digests for rank, step, *digests in found}
    assert all(states[0, step] == states[1, step] for step in range(1, 7))
    assert states[0, 3] == states[0, 4] != states[0, 5]


def test_memory_that_runs_out_on_one_rank_ends_the_job_with_what_to_lower(workshop, tmp_path):
    done = workshop.train(2, tmp_path / "run", fault=("memory", "3", "1"), save_steps=1)
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    found = re.search(
        r"memory: step 3, its largest shard (\d+) rows of up to (\d+) tokens, does not fit on cpu", done.output
    )
    assert found and 0 < int(found[1]) < 12, done.output
    assert "ringtune-train: rank 1 of 2 (host " in done.output and "lower --per_device_train_batch_size" in done.output
    assert done.output.count("does not fit") == 1
