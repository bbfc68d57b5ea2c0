"""One trial of ringtune-launch tune: a real launch of a few steps in a folder of its own, and its step times."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.launch import commands
from ringtune.launch.choices import Choice
from ringtune.launch.rank import die_with_parent
from ringtune.train.contract import METRICS_FILE, VERDICT_FILE, read_records

END_GRACE_S = 20.0  # between SIGTERM and SIGKILL of a launch
#: What a trial does not need, whatever the run asks for: it measures steps and leaves nothing.
OVERRIDES: Mapping[str, Any] = {
    "logging_steps": 1,
    "do_eval": False,
    "do_predict": False,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
    "log_row_ids": False,
    "report_to": "none",
    "disable_tqdm": True,
}


@dataclass
class Measured:
    """A choice and what is known of it."""

    choice: Choice
    times: dict[tuple[int, int], float] = field(default_factory=dict)  # seconds of each (launch, step)
    failure: str = ""  # why a launch of it gave no times
    cut_off: bool = False  # whether the time was up before it had ended
    peak_gib: float = 0.0  # memory of the rank that used most

    @property
    def no_memory(self) -> bool:
        """Whether it failed for want of memory."""
        return "memory: " in self.failure and "does not fit" in self.failure


@dataclass(frozen=True)
class Program:
    """What every trial starts."""

    command: tuple[str, ...]  # ringtune-train without its flags
    settings: Mapping[str, Any]  # all of its settings
    launch_flags: tuple[str, ...]  # of ringtune-launch run, that all trials share
    warm_up: int  # steps that are not counted
    steps: int  # steps that are

    def words(self, choice: Choice, hosts: Sequence[str], folder: Path) -> list[str]:
        """Return the command of a trial, after writing its settings."""
        import yaml

        changes = {"output_dir": str(folder / "run"), "max_steps": self.warm_up + self.steps}
        settings = {**self.settings, **OVERRIDES, **choice.train_settings(self.settings), **changes}
        (folder / "trial.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        launch = [*commands.module("ringtune.launch.cli"), "run", "--no-check", *hosts, *self.launch_flags]
        logs = ["--output-dir", str(folder / "logs")]
        return [*launch, *choice.launch_flags(), *logs, "--", *self.command, "--config", str(folder / "trial.yaml")]


def measure(program: Program, found: Measured, hosts: Sequence[str], folder: Path, limit_s: float) -> None:
    """Launch a choice once and add its step times, or why there are none; all it started is gone then.

    hosts: flags of ringtune-launch run that say where. folder: new, seen by all hosts.
    """
    folder.mkdir()
    launch = max((number for number, _ in found.times), default=-1) + 1
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            program.words(choice=found.choice, hosts=hosts, folder=folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    if code == 0:
        _read_times(folder / "run" / METRICS_FILE, program.warm_up, launch, found)
    elif code is None:
        found.cut_off = not found.times
        found.failure = f"not finished after {limit_s:.0f} s, when the time was up"
    else:
        found.failure = _reason(folder, code)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a launch that still runs. Its second request to stop ends all ranks at once."""
    deadline = time.monotonic() + END_GRACE_S
    while process.poll() is None:
        overdue = time.monotonic() > deadline
        os.killpg(process.pid, signal.SIGKILL if overdue else signal.SIGTERM)
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            continue


def _read_times(path: Path, warm_up: int, launch: int, found: Measured) -> None:
    records = [each for each in read_records(path) if each["event"] == "train"] if path.exists() else []
    for each in records:
        if each["step"] > warm_up:
            found.times[launch, each["step"]] = each["num_tokens"] / each["tokens_per_s"]
            found.peak_gib = max(found.peak_gib, each["peak_memory_gib"])
    if not records:
        found.failure = f"no step is recorded in {path.parent}: do all hosts share that folder (--scratch)"


def _reason(folder: Path, code: int) -> str:
    """Return in one line why a launch failed."""
    try:
        verdict = json.loads((folder / "logs" / VERDICT_FILE).read_bytes())
        words = f"{verdict['headline']}: {verdict['last_line']}".rstrip(": ")
    except (OSError, ValueError, KeyError):
        lines = (folder / "output").read_text(errors="replace").splitlines()
        words = next((line for line in reversed(lines) if line.strip()), "no output")
    return f"exit code {code}: {words}" if "exit code" not in words else words
