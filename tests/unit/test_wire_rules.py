"""What is sent of gradients: units in which no sum overflows, what is worth a factor, and what ranks keep on disk."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import checkpoint, half, lowrank, publish, rank_state
from ringtune.train.contract import UsageError
from test_checkpoint import Crash, CrashingDisk, count_operations, snapshot


class Alone:
    """Stands in for the ranks of a job of one."""

    size = 1


FLOATS = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=300))
def test_no_sum_in_fp16_overflows_and_large_values_keep_their_digits(values):
    """Added one by one, each sum rounded to fp16, as on a ring."""
    terms = torch.tensor(values, dtype=torch.float32)
    unit = half.units(terms.abs().max(), len(values))
    assert math.frexp(float(unit))[0] == 0.5  # a power of two: scaling loses nothing
    scaled = (terms * unit.reciprocal()).half()
    total = torch.zeros((), dtype=torch.float16)
    for each in scaled:
        total = (total.float() + each.float()).half()
    assert total.isfinite()
    large = terms.abs() > terms.abs().max() * 2.0**-20
    back = scaled.double() * unit.double()
    assert torch.allclose(back[large], terms.double()[large], rtol=2.0**-11, atol=1e-37)


def test_what_is_not_finite_has_no_unit_and_zeros_have_one():
    found = half.units(torch.tensor([float("inf"), float("nan"), 0.0]), 2)
    assert found[:2].isnan().all() and found[2] == 1.0


@pytest.mark.parametrize("size", [(30522, 384, 6), (30522, 768, 12), (128100, 1024, 24)], ids=str)
def test_low_rank_sends_at_most_three_percent_of_models_of_all_sizes(size):
    vocabulary, width, layers = size
    shapes = {"words": (vocabulary, width), "positions": (512, width), "types": (2, width), "norm": (width,)}
    for layer in range(layers):
        shapes |= {f"{layer}/{name}": (width, width) for name in ("query", "key", "value", "output")}
        shapes |= {f"{layer}/up": (4 * width, width), f"{layer}/down": (width, 4 * width)}
        shapes |= {f"{layer}/{name}": (width,) for name in range(11)} | {f"{layer}/bias": (4 * width,)}
    weights = {name: torch.nn.Parameter(torch.empty(shape, device="meta")) for name, shape in shapes.items()}
    reducer = lowrank.LowRankReducer(weights, Alone(), rank=4, seed=1)
    assert {name for name in shapes if name not in reducer.matrices} >= {"types", "norm", "0/bias"}
    share = float(reducer.describe().partition("whole: ")[2].partition("%")[0])
    assert 0.1 < share <= 3.0, reducer.describe()


# What each rank keeps


def state_of(rank: int) -> dict[str, torch.Tensor]:
    return {"w/error": torch.full((2, 3), 10.0**rank), "w/factor": torch.ones(3, 1)}


def save(folder, num_ranks: int = 3, step: int = 1):
    """Write what ranks keep and the checkpoint that has it, as a save does."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [rank_state.write(folder, rank, state_of(rank)) for rank in range(num_ranks)]
    rank_state.require_all(parts)
    return checkpoint.write_checkpoint(folder, dataclasses.replace(snapshot(step), parts=parts))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_errors_of_all_ranks_have_one_sum_at_any_world_size(tmp_path, size):
    path = save(tmp_path)
    assert checkpoint.verify(path) is None and not list(tmp_path.glob(".*"))
    found = [rank_state.read(path, rank, size) for rank in range(size)]
    assert {num_ranks for _, num_ranks in found} == {3}
    assert sum(tensors["w/error"] for tensors, _ in found).eq(111.0).all()
    assert all(tensors["w/factor"].eq(1.0).all() for tensors, _ in found)
    if size == 3:
        assert all(tensors["w/error"].eq(10.0**rank).all() for rank, (tensors, _) in enumerate(found))


def test_a_crash_at_every_write_flush_and_rename_leaves_what_all_ranks_kept_or_nothing(tmp_path, monkeypatch):
    operations = count_operations(tmp_path, monkeypatch, save)
    assert operations > 20
    for allowed in range(operations):
        folder = tmp_path / str(allowed)
        with monkeypatch.context() as patch:
            CrashingDisk(patch, allowed)
            with pytest.raises(Crash):
                save(folder)
        found, _ = checkpoint.find_latest(folder)
        if found is not None:
            assert [rank_state.read(found, rank, 3)[1] for rank in range(3)] == [3, 3, 3]
        publish.remove_left_behind(folder)
        assert not list(folder.glob(".*"))
        assert rank_state.read(save(folder), 2, 3)[0]["w/error"].eq(100.0).all()


def test_what_a_rank_kept_is_refused_where_it_is_damaged_or_missing(tmp_path):
    path = save(tmp_path)
    name = path / "rank-00001.safetensors"
    content = bytearray(name.read_bytes())
    content[-1] ^= 1
    name.write_bytes(content)
    assert "rank-00001.safetensors is not what was written" in str(checkpoint.verify(path))
    checkpoint.load_checkpoint(path)  # rank 0 has read all when it chose the checkpoint
    with pytest.raises(UsageError, match="rank-00001.*its sha256 differs"):
        rank_state.read(path, 1, 3)
    rank_state.read(path, 0, 3)
    plain = checkpoint.write_checkpoint(tmp_path / "plain", snapshot(1))
    with pytest.raises(UsageError, match="it holds no state of single ranks.*a run with --compression acp"):
        rank_state.read(plain, 0, 3)


def test_ranks_that_do_not_share_the_folder_are_told_so(tmp_path):
    part = rank_state.write(tmp_path, 1, state_of(1))
    part.path.unlink()
    with pytest.raises(UsageError, match="rank 0 does not see what rank 0 wrote.*one folder that all ranks share"):
        rank_state.require_all([part])
    with pytest.raises(UsageError, match="rank 1 does not see what rank 0 made"):
        rank_state.write(tmp_path / "elsewhere", 1, state_of(1))


@pytest.mark.parametrize("done", [1, 2, 3])
def test_low_rank_that_is_restored_goes_on_bitwise_and_without_its_state_does_not(tmp_path, done):
    """Behind either factor; the matrix is square, so that one factor has the shape of the other."""
    gradients = [torch.randn(12, 12, generator=torch.Generator().manual_seed(step)) for step in range(6)]

    def reducer() -> lowrank.LowRankReducer:
        return lowrank.LowRankReducer({"w": torch.nn.Parameter(torch.zeros(12, 12))}, Alone(), rank=2, seed=1)

    def take(each: lowrank.LowRankReducer, steps: range) -> list[torch.Tensor]:
        weight, found = each.parameters["w"], []
        for step in steps:
            weight.grad = None
            each.backward((weight * gradients[step]).sum(), last=True)
            each.finish()
            found.append(weight.grad.clone())
        return found

    whole, first, second, fresh = (reducer() for _ in range(4))
    expected = take(whole, range(6))[done:]
    take(first, range(done))
    part = rank_state.write(tmp_path, 0, first.own_state())
    second.restore(rank_state.load_tensors(part.path.read_bytes()), done)
    assert all(map(torch.equal, take(second, range(done, 6)), expected))
    fresh.num_sums = done
    assert not torch.equal(take(fresh, range(done, 6))[0], expected[0])
    with pytest.raises(RuntimeError):  # of another rank
        lowrank.LowRankReducer(first.parameters, Alone(), rank=3, seed=1).restore(first.own_state(), done)
