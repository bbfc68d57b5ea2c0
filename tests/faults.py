"""Run ringtune-train with a planted fault: ``faults.py [kill K | nan ROW | loud FACTOR | stop K RANK | raise K RANK | hang K RANK | orphan | differ RANK] -- FLAGS``.

The faults are real ones (SIGKILL, SIGTERM, an exception, a NaN); what is planted is only when they happen. ``logits FILE``
is no fault: it notes what the model in memory says of a few rows at each save. With ``hang``, patience is short.
"""

import json
import os
import signal
import sys
import time

import torch
from ringtune.train import cli, comm, loop, model, step
from ringtune.train.contract import promised_rank
from ringtune.train.tokens import TokenTable

words, flags = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
original_take, original_batch, original_losses = step.Stepper.take, TokenTable.batch, step.row_losses


def take(self, plan, stop_requested):
    if words[:1] == ["raise"] and (plan.step, self.comm.rank) == (int(words[1]), int(words[2])):
        raise RuntimeError("planted failure")
    if words[:1] == ["hang"] and (plan.step, self.comm.rank) == (int(words[1]), int(words[2])):
        time.sleep(600)
    if words[:1] == ["kill"] and plan.step > int(words[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if words[:1] == ["stop"] and (plan.step, self.comm.rank) == (int(words[1]), int(words[2])):
        os.kill(os.getpid(), signal.SIGTERM)
    before = model.state_digest(self.model.state_dict()) if words[:1] in (["nan"], ["loud"]) else ""
    try:
        return original_take(self, plan, stop_requested)
    except step.NotFinite:
        same = model.state_digest(self.model.state_dict()) == before
        print(f"parameters of rank {self.comm.rank} {'as before' if same else 'changed'}", flush=True)
        raise


def batch(self, rows):
    tainted.clear()
    tainted.extend(row for row in rows if words[:1] == ["nan"] and row == int(words[1]))
    return original_batch(self, rows)


def row_losses(*arguments):
    factor = float(words[1]) if words[:1] == ["loud"] else 1.0
    return original_losses(*arguments) * (float("nan") if tainted else factor)


if words[:1] == ["hang"]:
    comm.STALL_LIMIT_S = 4
    os.environ["HOROVOD_STALL_CHECK_TIME_SECONDS"] = "2"
tainted: list[int] = []  # the rows of the latest batch whose loss is to be no number
step.row_losses = row_losses


def load_model(config, task):
    network = original_load(config, task)
    if words[:1] == ["orphan"]:
        network.register_parameter("orphan", torch.nn.Parameter(torch.ones(2, 2)))
    if words[:1] == ["differ"] and promised_rank() == int(words[1]):
        with torch.no_grad():
            next(network.parameters()).add_(1e-6)
    return network


def save(self):
    if words[:1] == ["logits"]:
        rows = self.tables.train.batch(range(5))
        rows.pop("labels")
        self.network.eval()
        with torch.no_grad():
            noted["logits"][self.step] = self.network(**rows).logits.tolist()
        noted["rows"] = {name: each.tolist() for name, each in rows.items()}
        with open(words[1], "w") as stream:
            json.dump(noted, stream)
    original_save(self)


noted: dict = {"logits": {}}
original_save, loop.Loop._save = loop.Loop._save, save
original_load, model.load_model = model.load_model, load_model
step.Stepper.take = take
TokenTable.batch = batch
cli.main(flags)
