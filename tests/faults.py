"""Run ringtune-train with a planted fault: ``faults.py [FAULT] -- FLAGS``.

FAULT: ``kill K``, ``nan ROW``, ``loud FACTOR``, ``overflow K RANK``, ``memory K RANK``, ``stop K RANK``, ``raise K
RANK``, ``hang K RANK``, ``cut K RANK``, ``orphan`` or ``differ RANK``. The faults are real ones (SIGKILL, SIGTERM, an
exception, a NaN, an overflow of fp16); what is planted is only when they happen, but for ``memory``, which raises what
torch raises when a GPU has none left. ``cut`` kills a rank that has sent which rows of the word embeddings it has, and
not the rows; the matrix is small, and travels by rows all the same. With ``hang``, the stall limit is short. Two are no
faults: ``logits FILE`` writes down the logits of the model in memory for a few rows at each save, ``digests`` prints
those of parameters and moments before each step.
On a GPU only: ``little`` leaves it no memory from step 3, ``syncs`` prints how often the host waits for it in a step.
"""

import json
import os
import signal
import sys
import time
import warnings
from contextlib import suppress

import torch
from ringtune.train import cli, comm, digest, embedding, loop, model, optimizer, step
from ringtune.train.contract import promised_rank
from ringtune.train.task.classification import Classification

words, flags = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
fault = words[0] if words else None
if fault == "cut":
    embedding.SMALLEST = 0
original_take = step.Stepper.take
original_collate, original_losses = Classification.collate, Classification.losses


def take(self, plan, stop_requested, upcoming=None):
    is_here = here[0] = len(words) == 3 and (plan.step, self.comm.rank) == (int(words[1]), int(words[2]))
    if fault in ("digests", "overflow"):
        moments = optimizer.optimizer_tensors(self.model, self.optimizer)
        digests = [digest.state_digest(each) for each in (self.model.state_dict(), moments)]
        print(f"rank {self.comm.rank} before step {plan.step}: {' '.join(digests)}", flush=True)
    if fault == "raise" and is_here:
        raise RuntimeError("planted failure")
    if fault == "hang" and is_here:
        time.sleep(600)
    if fault == "kill" and plan.step > int(words[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "stop" and is_here:
        os.kill(os.getpid(), signal.SIGTERM)
    before = digest.state_digest(self.model.state_dict()) if fault in ("nan", "loud") else ""
    if fault == "little" and plan.step == 3:
        fill_the_gpu()
    if fault == "syncs":
        return counted(self, plan, stop_requested, upcoming)
    try:
        return original_take(self, plan, stop_requested, upcoming)
    except step.NotFinite:
        same = digest.state_digest(self.model.state_dict()) == before
        print(f"parameters of rank {self.comm.rank} {'as before' if same else 'changed'}", flush=True)
        raise


def fill_the_gpu():
    """Let this process have no more memory, and use up what torch has already: a small step would fit in there."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    for size in (2 << 20, 512):  # torch keeps blocks of more than 1 MiB apart from smaller ones
        with suppress(torch.OutOfMemoryError):
            while True:
                filling.append(torch.empty(size, dtype=torch.uint8, device="cuda"))


def add_async(self, tensor, name):
    if fault == "cut" and here[0] and name == "embedding/rows":
        os.kill(os.getpid(), signal.SIGKILL)
    return original_add(self, tensor, name)


def counted(self, plan, *others):
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = original_take(self, plan, *others)
    torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing CUDA operation" in str(each.message) for each in caught)
    print(f"step {plan.step}: {count} synchronisations", flush=True)
    return result


def collate(self, features, chosen, seed):
    tainted.clear()
    tainted.extend(row for row in chosen if fault == "nan" and row == int(words[1]))
    return original_collate(self, features, chosen, seed)


def losses(self, *arguments):
    if fault == "memory" and here[0]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ...\n...")
    factor = float(words[1]) if fault == "loud" else 1e6 if fault == "overflow" and here[0] else 1.0
    return original_losses(self, *arguments) * (float("nan") if tainted else factor)


if fault == "hang":
    comm.STALL_LIMIT_S = 4
    os.environ["HOROVOD_STALL_CHECK_TIME_SECONDS"] = "2"
here = [False]  # whether this is the step and the rank of the fault
filling: list[torch.Tensor] = []  # a GPU that is to have no memory left
tainted: list[int] = []  # the rows of the latest batch whose loss is to be no number


def load_model(*words_of_it, **settings):
    network = original_load(*words_of_it, **settings)
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
original_add, comm.Comm.add_async = comm.Comm.add_async, add_async
step.Stepper.take = take
Classification.collate, Classification.losses = collate, losses
cli.main(flags)
