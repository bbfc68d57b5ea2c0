"""A Horovod script in which the last rank fails before its first collective: ``fault.py raise|kill|hang|wait``.

``wait`` does not fail: all ranks sleep until somebody ends them.
"""

import os
import signal
import sys
import time

import horovod.torch as hvd
import torch

hvd.init()
print(f"rank {hvd.rank()} is up", flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
if hvd.rank() == hvd.size() - 1:
    if sys.argv[1] == "raise":
        raise RuntimeError("planted failure")
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
hvd.allreduce(torch.ones(3), name="first")
