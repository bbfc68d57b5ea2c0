"""What is sent of gradients: as fp16, or as factors of low rank with the errors kept."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import digests, ranks, records
from safetensors.torch import load_file

pytestmark = pytest.mark.parallel
ACP = {"compression": "acp", "compression_rank": 2}


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.long), 3])
def test_low_rank_holds_what_it_promises_on_every_rank(size):
    done = ranks(size, str(Path(__file__).parent / "lowrank_facts.py"), limit_s=120)
    assert done.output.count("all facts hold") == size, done.output


@pytest.mark.parametrize(
    "kills",
    [[random.Random().randrange(2, 11)], pytest.param(range(2, 12), marks=pytest.mark.long)],
    ids=["one", "all"],
)
def test_a_run_of_low_rank_killed_at_any_step_goes_on_with_not_one_bit_changed(workshop, reference, tmp_path, kills):
    """A checkpoint may lie behind a step that sent one factor, or behind one that sent the other."""
    whole = reference(2, **ACP)
    for kill_at in kills:
        done = workshop.train(2, tmp_path / "run", kill_at=kill_at, save_steps=1, **ACP)
        assert done.returncode != 0, done.output
    done = workshop.train(2, tmp_path / "run", **ACP)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert "errors of compression" not in done.output
    assert digests(tmp_path / "run", 12) == digests(whole, 12)
    assert records(tmp_path / "run", "train") == records(whole, "train")
    for rank in range(2):
        name = f"checkpoint-12/rank-{rank:05d}.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert [each.name for each in (tmp_path / "run").iterdir() if each.name.endswith(".tmp")] == []


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (3, 2)])
def test_a_run_of_low_rank_goes_on_at_another_world_size_as_it_would_have(workshop, reference, tmp_path, sizes):
    """Up to rounding: the errors of all ranks have the sum that they had. Without them the curve is another one."""
    settings = {**ACP, "num_shards": 6, "dropout": 0.0, "max_steps": 12}
    assert workshop.train(sizes[0], tmp_path / "run", kill_at=5, save_steps=4, **settings).returncode != 0
    done = workshop.train(sizes[1], tmp_path / "run", **settings)
    assert done.returncode == 0, done.output
    assert f"errors of compression of {sizes[0]} rank(s) go on as those of {sizes[1]}" in done.output
    whole = [each["grad_norm"] for each in records(reference(1, **settings), "train")]
    assert [each["grad_norm"] for each in records(tmp_path / "run", "train")] == pytest.approx(whole, rel=2e-3)


@pytest.mark.long
def test_two_ranks_of_low_rank_have_the_curve_of_one_and_keep_errors_of_their_own(reference):
    """Near zero the curve of an uncompressed run is another one: the ranks do send less."""
    settings = {"num_shards": 6, "dropout": 0.0}
    one, two, plain = reference(1, **settings, **ACP), reference(2, **settings, **ACP), reference(2, **settings)
    norms = [[each["grad_norm"] for each in records(folder, "train")] for folder in (one, two, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=2e-3)
    assert norms[0] != pytest.approx(norms[2], rel=5e-2)
    saved = [load_file(two / f"checkpoint-12/rank-0000{rank}.safetensors") for rank in (0, 1)]
    name = "bert.encoder.layer.0.output.dense.weight"
    assert (saved[0][f"{name}/factor"] == saved[1][f"{name}/factor"]).all()
    assert not (saved[0][f"{name}/error"] == saved[1][f"{name}/error"]).all()
