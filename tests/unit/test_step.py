"""Traps of horovod.torch that are kept out by what is never called, the order of a step, and what a GPU waits for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from reads import Reads
from ringtune.train import batches, comm, gradient, half, step
from ringtune.train.objective import Objective
from test_first_token import IDS, MASK, classifier
from test_packing import packed

FOLDERS = [Path(__file__).parents[2] / name for name in ("train", "launch", "slurm")]
#: Not among them: DistributedOptimizer (drops state and defaults, sums over steps, reduces nothing unfrozen later),
#: broadcast_optimizer_state (takes a real step), broadcast_parameters, join (averages over the full size), allreduce of
#: Average, mpi_threads_supported (raises under Gloo).
HARMLESS = {
    "poll",
    "init",
    "shutdown",
    "rank",
    "size",
    "local_rank",
    "local_size",
    "cross_rank",
    "mpi_enabled",
    "nccl_built",
    "start_timeline",
    "stop_timeline",
    "Sum",
    "Max",
    "allreduce_async_",
    "allgather_async",
    "alltoall_async",
    "synchronize",
    "broadcast_object",
    "allgather_object",
}


def names_used(path: Path) -> tuple[set[str], set[str]]:
    """Return the modules that a file imports or imports from, with the names, and what it calls on ``hvd``."""
    imported, called = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("hvd", "self.hvd"):
            called.add(node.attr)
    return imported, called


def test_only_comm_speaks_to_horovod_and_only_by_what_has_no_trap():
    files = [each for folder in FOLDERS for each in folder.rglob("*.py")]
    assert len(files) > 30
    for path in files:
        imported, called = names_used(path)
        if "train" in path.parts and path.name != "comm.py":
            assert not {each for each in imported if each.split(".")[0] == "horovod"}, path
        assert called <= HARMLESS, (path, called - HARMLESS)
        # Under mpirun it tries torch.distributed and dies, under Gloo it believes in a world of one.
        assert not {each for each in imported if each.split(".")[-1] in ("Trainer", "TrainingArguments")}, path
    assert "broadcast_object" in names_used(Path(comm.__file__))[1]


class Script:
    """Stands in for the reduction, the ranks, the task and the features of a step, and notes the order of events."""

    lengths = np.ones(4, dtype=np.int32)
    row_of = np.arange(4)
    feature_columns: ClassVar[dict] = {}

    def __init__(self) -> None:
        self.events: list[str] = []

    def backward(self, loss, *, last):
        self.events.append("backward, last" if last else "backward")
        loss.backward()

    def finish(self):
        self.events.append("reduced")

    def gather(self, tensor, name):
        return tensor

    def collate(self, features, chosen, seed):
        return {"x": torch.ones(len(chosen), 1)}

    def inputs(self, batch):
        return batch

    def losses(self, output, batch, label_smoothing):
        return output.logits.square().flatten()


class Line(torch.nn.Linear):
    def forward(self, x):
        return type("Output", (), {"logits": super().forward(x)})


def test_a_step_reduces_then_clips_then_updates(monkeypatch):
    """Clipping what still travels races with the sum, which arrives in place."""
    script, model = Script(), Line(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    real_clip, real_step = step.clip, optimizer.step
    monkeypatch.setattr(
        step,
        "clip",
        lambda *words, **more: (script.events.append("clipped"), real_clip(*words, **more))[1],
    )
    monkeypatch.setattr(optimizer, "step", lambda *words: (script.events.append("updated"), real_step(*words))[1])
    stepper = make_stepper(model, optimizer, script, script)
    shards = [np.array([0, 1]), np.array([2]), np.array([], dtype=np.int64)]
    stepper.take(step.StepPlan(1, 0, 3, 3, shards, 0, 0.1), stop_requested=False)
    assert script.events == ["backward", "backward, last", "reduced", "clipped", "updated"]


def make_stepper(model, optimizer, reducer, script) -> step.Stepper:
    return step.Stepper(
        model,
        optimizer,
        reducer,
        script,
        script,
        script,
        step.Precision(torch.device("cpu"), None),
        seed=1,
        max_grad_norm=1.0,
        objective=Objective(),
    )


# What a GPU waits for


class Rows(Script):
    """Stands in for the same, with rows of tokens, some of them padded, and two ranks that hold the same."""

    size = 2

    def collate(self, features, chosen, seed):
        self.events.append("batch")
        return {"input_ids": IDS[chosen], "attention_mask": MASK[chosen]}

    def add_async(self, tensor, name):
        return tensor

    def wait(self, handle):
        return handle

    def maximum(self, tensor, name):
        return tensor

    maximum_async = maximum

    def is_done(self, handle):
        return True


REDUCERS = {
    "fast": lambda parameters, comm: gradient.OverlappedReducer(parameters, comm),
    "fp16 on the wire": lambda parameters, comm: half.HalfReducer(parameters, comm),
    "exact": lambda parameters, comm: gradient.OrderFreeReducer(parameters, comm, 4),
}
TWO_SHARDS = [np.array([0, 1]), np.array([2, 3])]


@pytest.mark.parametrize("reducer", REDUCERS)
def test_the_host_reads_a_step_from_its_device_once(reducer):
    rows, model = Rows(), packed("bert")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    stepper = make_stepper(model, optimizer, REDUCERS[reducer](dict(model.named_parameters()), rows), rows)
    for number in (1, 2):
        with Reads() as reads:
            stepper.take(step.StepPlan(number, 0, 4, 4, TWO_SHARDS, 0, 0.1), stop_requested=False)
        assert reads.found == ["tolist"]


def test_the_next_batch_is_built_while_the_device_computes_and_is_the_same(monkeypatch):
    rows, model = Rows(), classifier("bert")
    stepper = make_stepper(model, torch.optim.SGD(model.parameters()), rows, rows)
    monkeypatch.setattr(rows, "gather", lambda tensor, name: (rows.events.append("read"), tensor)[1])
    plans = [step.StepPlan(number, 0, 4, 4, TWO_SHARDS, 0, 0.1) for number in (1, 2)]
    stepper.take(plans[0], stop_requested=False, upcoming=plans[1])
    first = ["batch", "backward", "batch", "backward, last", "reduced"]
    assert rows.events == [*first, "batch", "read"]
    rows.events.clear()
    stepper.take(plans[1], stop_requested=False)
    assert rows.events == [*first[1:], "read"]  # its first batch was there


def test_a_batch_that_was_built_for_another_step_is_not_used():
    rows = Rows()
    several = batches.Batches(rows, rows, None, torch.device("cpu"), 1)
    several.prepare(5, 0, TWO_SHARDS[0])
    assert torch.equal(several.get(5, 1, TWO_SHARDS[1])["input_ids"], IDS[2:])
    assert torch.equal(several.get(5, 0, TWO_SHARDS[0])["input_ids"], IDS[:2])  # what was built ahead is gone


def test_a_gradient_that_is_not_finite_stays_so_in_exact_sums():
    weight = torch.nn.Parameter(torch.ones(2))
    for bad in (float("inf"), float("-inf"), float("nan")):
        reducer = gradient.OrderFreeReducer({"w": weight}, Rows(), 2)
        reducer.backward((weight * torch.tensor([bad, 1.0])).sum(), last=True)
        reducer.finish()
        assert weight.grad is not None and not weight.grad.isfinite().any()
        weight.grad = None
