"""A Horovod script whose last rank fails before its first collective: ``fault.py raise|raise_alone|kill|hang|wait``.

With ``raise_alone`` the other ranks are in no collective, so that only the launcher can end them. With ``kill`` the
rank leaves a process behind. ``wait`` does not fail: all ranks sleep until somebody ends them.
"""

import os
import signal
import subprocess
import sys
import time

import horovod.torch as hvd
import torch

hvd.init()
print(f"rank {hvd.rank()} is up", flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
if hvd.rank() == hvd.size() - 1:
    if sys.argv[1].startswith("raise"):
        raise RuntimeError("planted failure")
    if sys.argv[1] == "kill":
        subprocess.Popen(["sleep", "600"])
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
if sys.argv[1] == "raise_alone":
    time.sleep(600)
hvd.allreduce(torch.ones(3), name="first")
