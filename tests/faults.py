"""Run ringtune-train with a planted fault: ``faults.py [FAULT] -- FLAGS``.

FAULT: ``kill K``, ``nan ROW``, ``loud FACTOR``, ``stop K RANK``, ``raise K RANK``, ``hang K RANK``, ``orphan`` or
``differ RANK``. The faults are real ones (SIGKILL, SIGTERM, an exception, a NaN); what is planted is only when they
happen. With ``hang``, the stall limit is short. Two are no faults: ``logits FILE`` writes down the logits of the model
in memory for a few rows at each save, ``digests`` prints those of parameters and moments before each step.
"""

import json
import os
import signal
import sys
import time

import torch
from ringtune.train import cli, comm, loop, model, step
from ringtune.train.contract import promised_rank
from ringtune.train.task.classification import Classification

words, flags = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
fault = words[0] if words else None
original_take = step.Stepper.take
original_collate, original_losses = Classification.collate, Classification.losses


def take(self, plan, stop_requested):
    is_here = len(words) == 3 and (plan.step, self.comm.rank) == (int(words[1]), int(words[2]))
    if fault == "digests":
        moments = model.optimizer_tensors(self.model, self.optimizer)
        digests = [model.state_digest(each) for each in (self.model.state_dict(), moments)]
        print(f"rank {self.comm.rank} before step {plan.step}: {' '.join(digests)}", flush=True)
    if fault == "raise" and is_here:
        raise RuntimeError("planted failure")
    if fault == "hang" and is_here:
        time.sleep(600)
    if fault == "kill" and plan.step > int(words[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "stop" and is_here:
        os.kill(os.getpid(), signal.SIGTERM)
    before = model.state_digest(self.model.state_dict()) if fault in ("nan", "loud") else ""
    try:
        return original_take(self, plan, stop_requested)
    except step.NotFinite:
        same = model.state_digest(self.model.state_dict()) == before
        print(f"parameters of rank {self.comm.rank} {'as before' if same else 'changed'}", flush=True)
        raise


def collate(self, features, chosen, seed):
    tainted.clear()
    tainted.extend(row for row in chosen if fault == "nan" and row == int(words[1]))
    return original_collate(self, features, chosen, seed)


def losses(self, *arguments):
    factor = float(words[1]) if fault == "loud" else 1.0
    return original_losses(self, *arguments) * (float("nan") if tainted else factor)


if fault == "hang":
    comm.STALL_LIMIT_S = 4
    os.environ["HOROVOD_STALL_CHECK_TIME_SECONDS"] = "2"
tainted: list[int] = []  # the rows of the latest batch whose loss is to be no number


def load_model(config, task):
    network = original_load(config, task)
    if fault == "orphan":
        network.register_parameter("orphan", torch.nn.Parameter(torch.ones(2, 2)))
    if fault == "differ" and promised_rank() == int(words[1]):
        with torch.no_grad():
            next(network.parameters()).add_(1e-6)
    return network


def state(self):
    if fault == "logits":
        task = self.tables.task
        batch = task.inputs(original_collate(task, self.tables.train, range(5), 0))
        self.stepper.model.eval()
        with torch.no_grad():
            noted["logits"][self.step] = self.stepper.model(**batch).logits.tolist()
        noted["rows"] = {name: each.tolist() for name, each in batch.items()}
        with open(words[1], "w") as stream:
            json.dump(noted, stream)
    return original_state(self)


noted: dict = {"logits": {}}
original_state, loop.Loop._state = loop.Loop._state, state
original_load, model.load_model = model.load_model, load_model
step.Stepper.take = take
Classification.collate, Classification.losses = collate, losses
cli.main(flags)
