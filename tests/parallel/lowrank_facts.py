"""What low rank promises of sums over ranks, asserted on every rank; run under any number of ranks."""

import sys

import torch
from ringtune.train.comm import Comm
from ringtune.train.lowrank import LowRankReducer

STEPS, ROWS, COLUMNS, RANK = 7, 24, 40, 3


class Alone:
    """Stands in for the ranks of a job of one."""

    size = 1


def reducer_of(comm):
    weights = {
        "matrix": torch.nn.Parameter(torch.zeros(ROWS, COLUMNS)),
        "turned": torch.nn.Parameter(torch.zeros(COLUMNS, ROWS).t()),  # a layout that Horovod does not take
        "vector": torch.nn.Parameter(torch.zeros(COLUMNS)),
        "thin": torch.nn.Parameter(torch.zeros(2, COLUMNS)),
    }
    return weights, LowRankReducer(weights, comm, rank=RANK, seed=5)


def take(weights, reducer, gradients) -> dict[str, torch.Tensor]:
    """Return the reduced gradients of one step; gradients: by name, or None for a rank without rows."""
    for each in weights.values():
        each.grad = None
    if gradients is not None:
        reducer.backward(sum((weights[name] * value).sum() for name, value in gradients.items()), last=True)
    reducer.finish()
    return {name: each.grad.clone() for name, each in weights.items()}


def drawn(weights, step: int, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return {name: torch.randn(each.shape, generator=generator) for name, each in weights.items()}


def close(one, other, tolerance=2e-5) -> bool:
    return torch.allclose(one, other, rtol=0.0, atol=tolerance * float(other.abs().max()) + 1e-6)


comm = Comm()
weights, reducer = reducer_of(comm)
lone_weights, lone = reducer_of(Alone())
given, received = ({name: torch.zeros(each.shape) for name, each in weights.items()} for _ in range(2))
for step in range(STEPS):
    has_rows = [rank for rank in range(comm.size) if rank != 1 or step != 2]  # in one step rank 1 has none
    every = [drawn(weights, step, rank) for rank in has_rows]
    total = {name: sum(each[name] for each in every) for name in weights}
    found = take(weights, reducer, drawn(weights, step, comm.rank) if comm.rank in has_rows else None)
    # N ranks give what one rank gives with the sum of their gradients.
    alone = take(lone_weights, lone, total)
    for name, value in found.items():
        assert close(value, alone[name]), (step, name)
        given[name] += total[name]
        received[name] += value
    # What is smaller whole is sent whole.
    assert close(found["vector"], total["vector"]) and close(found["thin"], total["thin"])
    assert set(reducer.matrices) == {"matrix", "turned"}
    assert torch.linalg.matrix_rank(found["matrix"], rtol=1e-4) <= RANK
    # Nothing is lost: what came so far and the errors of all ranks are what was given so far.
    for name, each in reducer.matrices.items():
        errors = comm.gather(each.error.unsqueeze(0).contiguous(), f"facts/{step}/{name}").sum(0)
        assert close(received[name] + errors, given[name]), (step, name)
        assert float(errors.abs().max()) > 0.1  # and they are something
    # All ranks have the same bits.
    everyone = comm.gather(found["matrix"].unsqueeze(0), f"facts/{step}/same")
    assert all(torch.equal(each, everyone[0]) for each in everyone)

# Gradients of a rank that the factors have come through whole, up to rounding: from the second step on all that was
# given so far, and nothing of it later.
weights, reducer = reducer_of(comm)
generator = torch.Generator().manual_seed(comm.rank)
columns = torch.randn(ROWS, RANK, generator=torch.Generator().manual_seed(9))  # the same space on all ranks
received = torch.zeros(ROWS, COLUMNS)
given = torch.zeros(ROWS, COLUMNS)
for step in range(4):
    mine = {name: torch.zeros(each.shape) for name, each in weights.items()}
    mine["matrix"] = columns @ torch.randn(RANK, COLUMNS, generator=generator)
    given += comm.gather(mine["matrix"].unsqueeze(0), f"facts/given/{step}").sum(0)
    received += take(weights, reducer, mine)["matrix"]
    if step % 2:
        assert close(received, given, 1e-4), step
assert not reducer.matrices["turned"].factor.any()  # of zeros, nothing
# And what was all zeros once is not so for ever.
ones = {name: torch.ones_like(each) for name, each in weights.items()}
assert sum(take(weights, reducer, ones)["turned"] for _ in range(4)).allclose(torch.full((1,), 4.0 * comm.size))

print(f"rank {comm.rank} of {comm.size}: all facts hold")
sys.stdout.flush()
comm.close()
