"""The threads of one rank, each taking chunk after chunk until none is left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train.comm import Comm
from ringtune.train.contract import StopRequested
from ringtune.train.evaluate import worker_threads
from ringtune.train.predict.clock import ACTIVITIES, Clock
from ringtune.train.predict.counter import open_counter
from ringtune.train.predict.parts import Spool, write_part
from ringtune.train.predict.predictor import Predictor
from ringtune.train.progress import Progress
from ringtune.train.stop import StopFlag


@dataclass(frozen=True)
class WorkerStats:
    """What one rank did, and where the time of its threads went."""

    rank: int
    host: str
    num_rows: int
    num_chunks: int
    rows_per_s: float
    cpu_s: float  # CPU time of the process; far below its threads' busy seconds: it shares its cores
    seconds: dict[str, float]  # by activity, and ``waiting`` for work and for other ranks; mean over the rank's threads


class Workers:
    """The threads of this rank."""

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        spool: Path,
        todo: Sequence[int],
        num_threads: int,
        comm: Comm,
        stop: StopFlag,
        bar: Progress,
    ) -> None:
        self.predictor, self.folder, self.spool, self.todo = predictor, folder, spool, todo
        self.num_threads, self.comm, self.stop, self.bar = num_threads, comm, stop, bar
        self.counter = open_counter(comm, self.should_stop)
        self.lock = threading.Lock()
        self.clocks: list[Clock] = []
        self.num_rows = self.num_chunks = 0  # done by this rank
        self.failed = False
        self.started, self.cpu_before_s = time.monotonic(), time.process_time()

    def should_stop(self) -> bool:
        """Return whether the threads should stop."""
        return self.failed or self.stop.is_set()

    def run(self) -> None:
        """Predict, in step with the other ranks, until all chunks are done. **Collective.**

        Errors and stops as in `Comm.work_together`.
        """
        try:
            every_s = self.counter.every_s
            self.comm.work_together(self._work, self.stop, "predict/work", meanwhile=self.exchange, every_s=every_s)
        except self.comm.Broken:
            raise  # a rank is gone; a thread may wait for its number for ever
        except Exception:
            # This rank leaves while its threads still predict. One that asked for a chunk after MPI has ended would be
            # the job's last message, and its exit code.
            self.failed = True
            self.counter.close()
            raise
        self.exchange()

    def _work(self) -> None:
        """Predict chunks until the counter has none left. Raises what a thread raises, when all have ended."""
        with worker_threads(self.num_threads) as pool:
            for each in as_completed([pool.submit(self._take_chunks) for _ in range(self.num_threads)]):
                self.failed = self.failed or each.exception() is not None
                each.result()

    def exchange(self) -> None:
        """Exchange with the other ranks how many chunks each one wants and how many rows are done. **Collective.**"""
        mine = torch.tensor([[self.counter.wanted(), self.num_rows]])
        everyone = self.comm.gather_without_spinning(mine, "workers/progress")
        self.counter.deal(everyone[:, 0].tolist())
        self.bar.update(self.bar.initial + int(everyone[:, 1].sum()))

    def _take_chunks(self) -> None:
        clock = Clock()
        self.clocks.append(clock)
        spool = Spool(self.spool)
        while (number := self.counter.take()) < len(self.todo):
            if self.should_stop():
                raise StopRequested
            chunk = self.todo[number]
            with clock.on("reading"):
                rows = spool.read(chunk)
            part = self.predictor.predict(rows, clock, self.should_stop)
            with clock.on("writing"):
                write_part(self.folder, chunk, part)
            with self.lock:
                self.num_rows += rows.num_rows
                self.num_chunks += 1

    def stats(self) -> WorkerStats:
        """Return what this rank did; call it when all ranks are done."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        seconds: dict[str, float] = {
            activity: sum(clock.seconds[activity] for clock in self.clocks) / self.num_threads
            for activity in ACTIVITIES
        }
        seconds["waiting"] = max(0.0, elapsed - sum(seconds.values()))
        speed = self.num_rows / elapsed
        return WorkerStats(
            rank=self.comm.rank,
            host=socket.gethostname(),
            num_rows=self.num_rows,
            num_chunks=self.num_chunks,
            rows_per_s=speed,
            cpu_s=time.process_time() - self.cpu_before_s,
            seconds=seconds,
        )


def stats_table(ranks: Sequence[WorkerStats]) -> str:
    """Return what each rank did, as lines to read. **Pure.**"""
    names = (*ACTIVITIES, "waiting")
    lines = ["rank  host          chunks       rows   rows/s" + "".join(f"{name:>12}" for name in names)]
    for each in ranks:
        spent: Any = "".join(f"{each.seconds[name]:>10.1f} s" for name in names)
        lines.append(
            f"{each.rank:4}  {each.host:12}  {each.num_chunks:6} {each.num_rows:10} {each.rows_per_s:8.1f}{spent}"
        )
    return "\n".join(lines)
