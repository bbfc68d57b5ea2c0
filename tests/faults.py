"""Run ringtune-train with a planted fault: ``faults.py [kill K | nan ROW | stop K RANK | raise K RANK] -- FLAGS``.

The faults are real ones (SIGKILL, SIGTERM, an exception, a NaN); what is planted is only when they happen.
"""

import os
import signal
import sys

import torch

from ringtune.train import cli, step
from ringtune.train.tokens import TokenTable

words, flags = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
original_take, original_batch = step.Stepper.take, TokenTable.batch


def take(self, plan, stop_requested):
    if words[:1] == ["raise"] and (plan.step, self.comm.rank) == (int(words[1]), int(words[2])):
        raise RuntimeError("planted failure")
    if words[:1] == ["kill"] and plan.step > int(words[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if words[:1] == ["stop"] and (plan.step, self.comm.rank) == (int(words[1]), int(words[2])):
        os.kill(os.getpid(), signal.SIGTERM)
    return original_take(self, plan, stop_requested)


def batch(self, rows):
    result = original_batch(self, rows)
    if words[:1] == ["nan"] and int(words[1]) in list(rows):
        result["labels"] = torch.full(result["labels"].shape, float("nan"))
    return result


step.Stepper.take = take
TokenTable.batch = batch
cli.main(flags)
