"""The traps of horovod.torch that this code could fall into, each with the guard that keeps it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ranks, records, run_command, script
from ringtune.train.digest import state_digest
from safetensors.torch import load_file

pytestmark = pytest.mark.parallel
FACTS = str(Path(__file__).parent / "comm_facts.py")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_collectives_hold_on_every_rank_over_mpi(size):
    done = ranks(size, FACTS, limit_s=120)
    assert done.output.count("all facts hold") == size, done.output


def test_collectives_hold_on_every_rank_over_gloo():
    done = run_command([script("horovodrun"), "--gloo", "-np", "2", sys.executable, FACTS], limit_s=120)
    assert done.output.count("all facts hold") == 2, done.output


def test_work_on_one_rank_may_take_longer_than_horovod_lets_a_rank_be_waited_for():
    """Tokenising takes hours where the stall check ends a job after minutes: the ranks that wait must keep talking."""
    limits = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "1", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "2", "FACTS_SLOW_S": "6"}
    done = ranks(2, FACTS, limit_s=120, env=limits)
    assert done.output.count("all facts hold") == 2, done.output


def test_ranks_on_other_hosts_than_promised_are_refused_with_their_table(workshop, tmp_path):
    arguments = workshop.arguments(tmp_path / "run")
    done = ranks(2, "-m", "ringtune.train.cli", *arguments, env={"RINGTUNE_HOSTS": "a:1,b:1"})
    assert done.returncode == 2 and "rank 1  host " in done.output, done.output
    assert "has local rank 1 of 2, promised 0 of 1" in done.output
    assert not (tmp_path / "run").exists()


def test_clipping_waits_for_the_reduction(reference):
    """Clipped hard: a rank that clipped its own part before the sum would scale it differently."""
    one, many = (reference(size, num_shards=6, max_grad_norm=0.05, dropout=0.0) for size in (1, 2))
    norms = [[each["grad_norm"] for each in records(folder, "train")] for folder in (one, many)]
    assert sum(norm > 0.05 for norm in norms[0]) > 8  # clipping is at work
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    weights = [load_file(folder / "model.safetensors") for folder in (one, many)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=2e-4), name


@pytest.mark.parametrize("size", [1, 2])
def test_a_parameter_that_the_loss_does_not_reach_is_never_decayed(workshop, tmp_path, size):
    done = workshop.train(size, tmp_path / "run", fault=("orphan",), weight_decay=0.5, max_steps=4)
    assert done.returncode == 0, done.output
    assert "1 parameters do not reach the loss and stay as they are: orphan" in done.output
    assert load_file(tmp_path / "run" / "model.safetensors")["orphan"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_replicas_that_differ_at_the_start_are_refused_naming_the_rank(workshop, tmp_path):
    done = workshop.train(3, tmp_path / "run", fault=("differ", "1"))
    assert done.returncode == 2, done.output
    assert "rank(s) [1] start from other parameters than rank 0" in done.output
    assert "Traceback" not in done.output


def test_every_rank_resumes_with_the_parameters_and_moments_of_the_checkpoint(workshop, tmp_path):
    """broadcast_optimizer_state of Horovod takes an optimizer step, and gives the moments by number, not by name."""
    assert workshop.train(2, tmp_path / "run", max_steps=3).returncode == 0
    saved = [load_file(tmp_path / "run" / "checkpoint-3" / f"{name}.safetensors") for name in ("model", "optimizer")]
    done = workshop.train(2, tmp_path / "run", max_steps=4, fault=("digests",))
    assert done.returncode == 0, done.output
    for rank in range(2):
        found = f"rank {rank} before step 4: {' '.join(map(state_digest, saved))}"
        assert found in done.output, (found, done.output)


@pytest.mark.long
def test_gradients_beyond_fp16_are_sent_as_fp16_and_give_nearly_the_same_curve(workshop, reference, tmp_path):
    """They are larger by a factor of 1e8, which clipping takes out again."""
    settings = {"num_shards": 6, "dropout": 0.0, "max_grad_norm": 1e-3}
    plain = reference(2, **settings)
    done = workshop.train(2, tmp_path / "run", fault=("loud", "1e8"), compression="fp16", **settings)
    assert done.returncode == 0, done.output
    losses = [
        [each["loss"] / factor for each in records(folder, "train")]
        for folder, factor in ((plain, 1.0), (tmp_path / "run", 1e8))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=5e-3)
    assert losses[0] != losses[1]


def test_a_launcher_that_started_lone_ranks_is_an_error_not_two_runs(workshop, tmp_path):
    done = ranks(
        0, "-m", "ringtune.train.cli", *workshop.arguments(tmp_path / "run"), env={"SLURM_STEP_NUM_TASKS": "2"}
    )
    assert done.returncode == 2
    assert "the launcher promised 2 ranks but Horovod found 1" in done.output


STARTERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
}


@pytest.mark.parametrize("starter", STARTERS)
def test_processes_of_other_starters_are_refused_once_instead_of_training_alone(workshop, tmp_path, starter):
    words = [sys.executable, "-m", *STARTERS[starter]]
    words += ["-m", "ringtune.train.cli", "--model_name_or_path", str(workshop.model)]
    words += ["--train_file", str(workshop.rows), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and done.stderr.count("ringtune-train: launch: WORLD_SIZE is 2") == 1, done.stderr
    assert "(exitcode: 2)" in done.stderr
    assert not (tmp_path / "run").exists()
