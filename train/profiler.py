"""A profile of some steps: for each rank one trace with the spans of the step, torch's operators and Horovod's work."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ringtune.train import disk, interval, timeline
from ringtune.train.comm import Comm
from ringtune.train.contract import PROFILE_DIR, rank_message
from ringtune.train.span import span

FLAG = "--profile_steps"
VIEWERS = "open them at https://ui.perfetto.dev or chrome://tracing"


class Profiler:
    """Records the steps of an interval; without one it does nothing. The mathematics of the run is the same.

    Horovod writes its timeline on rank 0 only, by a thread that takes a core from then on; the other ranks' files show
    the same timeline, on the hosts' own clocks.
    """

    def __init__(self, text: str | None, folder: Path, comm: Comm) -> None:
        """text: ``A:B``, 1-based and inclusive."""
        self.steps = interval.steps(text, FLAG)
        self.folder, self.comm = folder / PROFILE_DIR, comm
        self.recorded: list[int] = []
        self.torch: Any = None  # torch's profiler while it records
        self.step: Any = None  # the span of the step under way

    def begin(self, step: int) -> None:
        """Start recording if this 1-based step is the first one to be recorded."""
        if step not in self.steps:
            return
        if self.torch is None:
            self._start()
        self.recorded.append(step)
        self.step = span(f"step {step}")
        self.step.__enter__()

    def end(self, step: int, report: Callable[[str], None]) -> None:
        """Write the traces if this is the last step to be recorded. **Collective** then."""
        if self.torch is not None and step == self.steps[-1]:
            self.finish(report)
        elif self.step is not None:
            self._close_step()

    def finish(self, report: Callable[[str], None]) -> None:
        """Write what is recorded, also where the run ends before the last step of the interval. **Collective.**"""
        if self.torch is None:
            return
        self._close_step()
        self.torch.stop()
        horovod = self.comm.share(self._stop_timeline(), "profiler/horovod")
        path = self.folder / f"rank-{self.comm.rank}.json"
        with disk.named(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        owner = "Horovod" if self.comm.rank == 0 else "Horovod, as rank 0 recorded it"
        name = rank_message(self.comm.rank, self.comm.size, "steps and operators")
        trace = timeline.merge(self._torch_trace(), horovod, os.getpid(), name, owner)
        disk.replace_text(path, json.dumps(trace))
        self.torch = None
        self.comm.gather_values(None, "profiler/written")
        report(f"profile of steps {self.recorded[0]} to {self.recorded[-1]}: {self._files()}; {VIEWERS}")

    def report_missed(self, done: int, report: Callable[[str], None]) -> None:
        """Report an interval of which a resumed run, whose first ``done`` steps are not made again, records none."""
        if self.steps and self.steps[-1] <= done:
            report(f"{FLAG}: the run goes on after step {done}: nothing is left to profile")

    def _files(self) -> str:
        ranks = "rank-0.json" if self.comm.size == 1 else f"rank-0.json to rank-{self.comm.size - 1}.json"
        return f"{self.folder}/{ranks}"

    def _start(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="ringtune-profile-")
        self.torch = torch.profiler.profile()  # of the CPU and of what GPUs there are
        self.comm.start_timeline(Path(self.temporary.name) / "horovod.json")
        self.torch.start()

    def _close_step(self) -> None:
        if self.step is not None:
            self.step.__exit__(None, None, None)
            self.step = None

    def _stop_timeline(self) -> list[timeline.Event]:
        """Return what Horovod has recorded on this rank."""
        self.comm.stop_timeline()
        path = Path(self.temporary.name) / "horovod.json"
        return timeline.spans(path.read_text()) if path.exists() else []

    def _torch_trace(self) -> dict[str, Any]:
        path = Path(self.temporary.name) / "torch.json"
        self.torch.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())
        self.temporary.cleanup()
        return trace
