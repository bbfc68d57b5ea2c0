"""Traps of horovod.torch that are kept out by what is never called, and by the order of a step."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import torch
from ringtune.train import comm, step

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
    "Sum",
    "Max",
    "allreduce",
    "allreduce_async_",
    "allgather_async",
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
    real_clip, real_step = torch.nn.utils.clip_grad_norm_, optimizer.step
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda *words, **more: (script.events.append("clipped"), real_clip(*words, **more))[1],
    )
    monkeypatch.setattr(optimizer, "step", lambda *words: (script.events.append("updated"), real_step(*words))[1])
    stepper = step.Stepper(
        model,
        optimizer,
        script,
        script,
        script,
        script,
        step.Precision(torch.device("cpu"), None),
        seed=1,
        max_grad_norm=1.0,
        label_smoothing=0.0,
    )
    shards = [np.array([0, 1]), np.array([2]), np.array([], dtype=np.int64)]
    stepper.take(step.StepPlan(1, 0, 3, 3, shards, 0, 0.1), stop_requested=False)
    assert script.events == ["backward", "backward, last", "reduced", "clipped", "updated"]
