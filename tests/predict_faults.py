"""Run ringtune-predict with a planted fault: ``predict_faults.py [FAULT] -- FLAGS``.

FAULT: ``kill N RANK``: the rank kills itself at its N-th disk operation, half done where it can be, or start of a
chunk. ``kill_at NAME``: the process that renames something to NAME, a pattern, kills itself after it. ``raise CHUNK
RANK``, ``stop CHUNK RANK``: at the rank's CHUNK-th chunk. ``peak``: every rank prints the largest memory it ever had.
``slow RANK``: that rank takes twice as long for a chunk.
"""

import os
import resource
import signal
import sys
import time
from fnmatch import fnmatch

from ringtune.train import disk, rank
from ringtune.train.contract import promised_rank
from ringtune.train.predict import cli, predictor

words, flags = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
fault = words[0] if words else None
my_turn = len(words) > 2 and promised_rank() == int(words[2])
originals = {name: getattr(disk, name) for name in ("write_bytes", "fsync", "rename")}
operations = chunks = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def count_operation(path=None, content=None):
    global operations
    operations += 1
    if fault == "kill" and my_turn and operations == int(words[1]):
        if content is not None:
            path.write_bytes(bytes(content)[: len(content) // 2])
        die()


def write_bytes(path, content):
    count_operation(path, content)
    originals["write_bytes"](path, content)


def fsync(descriptor):
    count_operation()
    originals["fsync"](descriptor)


def rename(source, target):
    count_operation()
    result = originals["rename"](source, target)
    if fault == "kill_at" and fnmatch(target.name, words[1]):
        die()
    return result


def predict(self, *arguments):
    global chunks
    chunks += 1
    started = time.monotonic()
    count_operation()
    if fault in ("kill", "stop"):
        time.sleep(0.1)  # as a larger model would: the other ranks must not be done before the fault comes
    if fault == "raise" and my_turn and chunks == int(words[1]):
        raise RuntimeError("planted failure")
    if fault == "raise" and not my_turn:
        result = original_predict(self, *arguments[:2], lambda: False)
        time.sleep(1)  # this rank has left the job, and ended MPI, when its thread asks for the next chunk
        return result
    if fault == "stop" and my_turn and chunks == int(words[1]):
        os.kill(os.getpid(), signal.SIGTERM)
    result = original_predict(self, *arguments)
    if fault == "slow" and promised_rank() == int(words[1]):
        time.sleep(time.monotonic() - started)
    return result


def leave(code):
    if fault == "peak":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"peak of rank {promised_rank()}: {peak} MiB", flush=True)
    if fault == "raise" and my_turn:
        time.sleep(2)  # a launcher that is slow to end the others
    original_leave(code)


original_predict, predictor.Predictor.predict = predictor.Predictor.predict, predict
original_leave, rank.leave = rank.leave, leave
disk.write_bytes, disk.fsync, disk.rename = write_bytes, fsync, rename
cli.main(flags)
