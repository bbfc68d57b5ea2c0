"""Global facts about the collectives, asserted on every rank; run under any number of ranks."""

import os
import signal
import sys
import time

import torch
from ringtune.train.comm import Comm, PeerFailed
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.gradient import OrderFreeReducer, OverlappedReducer
from ringtune.train.half import BfloatReducer, HalfReducer
from ringtune.train.stop import StopFlag

comm = Comm()
rank, size = comm.rank, comm.size

# Set before Open MPI reads it: a rank that waits leaves its core to those that compute.
assert ("OMPI_MCA_mpi_yield_when_idle", "1") in os.environ.items()

# An object that differs by rank must not deadlock (Horovod derives the name of an unnamed broadcast from the object).
assert comm.share({"from": 0} if rank == 0 else None, "facts/share") == {"from": 0}
assert comm.gather_values(rank, "facts/values") == list(range(size))
assert comm.gather(torch.full((rank + 1,), rank), "facts/gather").tolist() == [
    r for r in range(size) for _ in range(r + 1)
]
# A tensor of another device would be copied to the host without a word.
try:
    comm.gather(torch.empty(3, device="meta"), "facts/device")
    raise SystemExit("a tensor of a device was gathered")
except ValueError as error:
    assert "facts/device: a tensor on meta" in str(error)
assert comm.any(rank == size - 1, "facts/any") and not comm.any(False, "facts/none")


# Work that takes long on one rank is waited for by all.
def slow() -> int:
    time.sleep(float(os.environ.get("FACTS_SLOW_S", "1")) if rank == 0 else 0.0)
    return rank * 10


assert comm.work_together(slow, StopFlag(), "facts/slow") == rank * 10

# What rank 0 alone does, all get the value of.
assert comm.on_rank_0(lambda: f"from rank {rank}", StopFlag(), "facts/rank_0") == "from rank 0"


# An error on the last rank ends the work of all: it reports it, the others leave with its exit code.
def failing() -> None:
    if rank == size - 1:
        raise UsageError("here", "planted")


try:
    comm.work_together(failing, StopFlag(), "facts/failing")
    raise SystemExit("the failure was not noticed")
except UsageError:
    assert rank == size - 1 and comm.reports_error
except PeerFailed as failed:
    assert rank != size - 1 and failed.exit_code == 2 and not comm.reports_error

# A signal to the last rank alone stops the work of all.
stop = StopFlag()
stop.listen()
if rank == size - 1:
    os.kill(os.getpid(), signal.SIGUSR1)
try:
    comm.work_together(lambda: [time.sleep(0.01) for _ in iter(stop.is_set, True)], stop, "facts/stop")
    raise SystemExit("the stop was not noticed")
except StopRequested:
    assert stop.is_set()

# Gradients are sums over ranks, whether or not a rank had rows, in a layout Horovod takes or not.
for make in (
    lambda p: OverlappedReducer(p, comm),
    lambda p: HalfReducer(p, comm),
    lambda p: BfloatReducer(p, comm),
    lambda p: OrderFreeReducer(p, comm, size),
):
    weight = torch.nn.Parameter(torch.ones(3, 4).t())
    reducer = make({"weight": weight})
    time.sleep(0.5 if rank == size - 1 else 0.0)  # who does not wait for it would read a part of the sum
    if rank != 1:  # rank 1 has no rows
        reducer.backward((weight * (rank + 1)).sum(), last=True)
    reducer.finish()
    expected = sum(r + 1 for r in range(size) if r != 1)
    assert weight.grad is not None and (weight.grad == expected).all(), weight.grad

# 40000 from each rank is beyond fp16 as a sum, 1e30 also alone, 1e-30 rounds to nothing: in 16 bits all come back.
for make, precision in ((HalfReducer, 1e-3), (BfloatReducer, 8e-3)):
    for value in (40000.0, 1e30, 1e-30, 0.0):
        weights = {"big": torch.nn.Parameter(torch.ones(30_001)), "small": torch.nn.Parameter(torch.ones(2))}
        reducer = make(weights, comm)
        reducer.backward((weights["big"] * value).sum() + (weights["small"] * rank).sum(), last=True)
        reducer.finish()
        found = weights["big"].grad
        assert found is not None and torch.allclose(
            found, torch.full_like(found, value * size), rtol=precision, atol=0.0
        )
        assert weights["small"].grad is not None and (weights["small"].grad == sum(range(size))).all()

    # What one rank alone finds not finite, none takes for a number.
    for bad in (float("inf"), float("nan")):
        weight = torch.nn.Parameter(torch.ones(20_000))
        reducer = make({"weight": weight}, comm)
        reducer.backward((weight * (bad if rank == size - 1 else 1.0)).sum(), last=True)
        reducer.finish()
        assert weight.grad is not None and not weight.grad.isfinite().any(), weight.grad

# In bf16 the ranks' values are added in fp32: next to 256, ones would be lost one by one.
weight = torch.nn.Parameter(torch.ones(20_000))
reducer = BfloatReducer({"weight": weight}, comm)
reducer.backward((weight * (256.0 if rank == 0 else 1.0)).sum(), last=True)
reducer.finish()
assert weight.grad is not None and (weight.grad == torch.tensor(255.0 + size).bfloat16()).all(), weight.grad

print(f"rank {rank} of {size}: all facts hold")
sys.stdout.flush()
comm.close()
