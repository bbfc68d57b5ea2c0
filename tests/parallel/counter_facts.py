"""Every number is dealt once, to any thread of any rank; run under any number of ranks and both controllers."""

import sys
import time

import torch
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested
from ringtune.train.evaluate import worker_threads
from ringtune.train.predict.counter import open_counter
from ringtune.train.stop import StopFlag

NUMBERS, THREADS = 300, 3
comm = Comm()
stop = StopFlag()
counter = open_counter(comm, stop.is_set)
assert type(counter).__name__ == sys.argv[1], counter
mine: list[int] = []


def take() -> None:
    while (number := counter.take()) < NUMBERS:
        mine.append(number)
        time.sleep(0.002 if comm.rank == 0 else 0.0002)  # rank 0 is slow


def work() -> None:
    with worker_threads(THREADS) as pool:
        for each in [pool.submit(take) for _ in range(THREADS)]:
            each.result()


def exchange() -> None:
    counter.deal(comm.gather(torch.tensor([counter.wanted()]), "facts/wanted").tolist())


comm.work_together(work, stop, "facts/work", meanwhile=exchange, every_s=counter.every_s)
everyone = comm.gather_values(mine, "facts/numbers")
assert sorted(number for numbers in everyone for number in numbers) == list(range(NUMBERS)), everyone
assert all(everyone), "a rank got nothing"
counter.close()
try:
    raise AssertionError(f"number {counter.take()} after the end")
except StopRequested:
    pass
print(f"rank {comm.rank} of {comm.size}: all facts hold, {len(mine)} numbers")
sys.stdout.flush()
comm.close()
