"""``ringtune-launch tune``, as a user starts it: real launches of the tiny model."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import FAULTS, Done, Workshop, curve, rank_environment, run_command, script
from usage import usage_error

pytestmark = pytest.mark.system
CLI = (sys.executable, "-m", "ringtune.launch.cli")


def flags(workshop: Workshop, folder: Path, **changes: object) -> list[str]:
    return workshop.arguments(folder / "mine", num_threads=None, dropout=0.0, **changes)


def words(folder: Path, *options: object, program: str = "ringtune-train") -> list[str]:
    files = ("--output", folder / "tuned.yaml", "--cache-dir", folder / "cache")
    return [*CLI, "tune", *map(str, (*files, *options)), "--", program]


def tune(workshop: Workshop, folder: Path, *options: object, program: str = "ringtune-train", **changes) -> Done:
    return run_command([*words(folder, *options, program=program), *flags(workshop, folder, **changes)], limit_s=900)


def faulty_program(folder: Path) -> str:
    """Return a ringtune-train that fails with two shards a rank, on rank 0 in step 3."""
    folder.mkdir()
    real, fails = script("ringtune-train"), f"{sys.executable} {FAULTS} raise 3 0 --"
    path = folder / "ringtune-train"
    path.write_text(
        f'#!/bin/sh\nif grep -qs "gradient_accumulation_steps: 2" "$2"; then exec {fails} "$@"; fi\nexec {real} "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def scratch_folders(folder: Path) -> list[Path]:
    return list(folder.glob(".ringtune-tune-*"))


def test_a_dry_run_lists_the_trials_and_what_cannot_be_tuned_is_refused(workshop: Workshop, tmp_path):
    done = tune(workshop, tmp_path, "--dry-run", "-np", 2)
    assert done.returncode == 0, done.output
    assert "2 ranks x 1 thread, 4 shards a rank" in done.output and "fp16 on the wire" in done.output
    assert "for the largest shard that fits into its memory is left out" in done.output
    done = tune(workshop, tmp_path, per_device_train_batch_size=6)
    assert "--per_device_train_batch_size: 6: it is what is tuned" in usage_error(done, "ringtune-launch")
    done = tune(workshop, tmp_path, learing_rate=1)
    assert "nearest is learning_rate" in usage_error(done, "ringtune-launch")
    done = tune(workshop, tmp_path, program="python")
    assert "is not ringtune-train" in usage_error(done, "ringtune-launch")
    done = tune(workshop, tmp_path, "--steps", 3)
    assert "--steps: 3 steps distinguish nothing" in usage_error(done, "ringtune-launch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_best_of_real_trials_computes_the_same_run_and_is_known_the_next_time(workshop: Workshop, tmp_path):
    program = faulty_program(tmp_path / "bin")
    done = tune(workshop, tmp_path, "--budget", 800, "--steps", 8, "--warm-up", 2, program=program)
    assert done.returncode == 0, done.output
    assert re.search(r"failed .*2 shards a rank: rank 0 of \d.*RuntimeError: planted failure", done.output), done.output
    assert len(re.findall(r"\] trial \d+: .* ms a step", done.output)) >= 3, done.output
    assert done.output.count("<- best") == 1 and not (tmp_path / "mine").exists()
    assert scratch_folders(tmp_path) == []
    found = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    launch = re.search(r"^  (ringtune-launch run .*) -- ringtune-train", done.output, re.MULTILINE)
    assert launch is not None and found["global_batch_size"] == 12

    own = ["--config", str(tmp_path / "tuned.yaml")]
    command = [*CLI, *launch[1].split()[1:], "--", script("ringtune-train"), *flags(workshop, tmp_path), *own]
    assert run_command(command).returncode == 0
    size = int(re.search(r"-np (\d+)", launch[1])[1])
    num_shards = size * found["gradient_accumulation_steps"]
    plain = workshop.train(1, tmp_path / "plain", num_shards=num_shards, dropout=0.0)
    assert plain.returncode == 0, plain.output
    rounding = 1e-2 if found.get("fp16_allreduce") else 1e-4
    assert curve(tmp_path / "mine") == pytest.approx(curve(tmp_path / "plain"), rel=rounding)

    again = tune(workshop, tmp_path, "--budget", 60, program=program)
    assert again.returncode == 0 and "on this kind of machine" in again.output and "trial 1" not in again.output
    assert "--again measures again" in again.output
    other = tune(workshop, tmp_path, "--budget", 1, "--again", program=program)
    assert "trial 1" in other.output


@pytest.mark.long
def test_an_interrupted_search_leaves_nothing_and_prints_what_it_knows(workshop: Workshop, tmp_path):
    command = [*words(tmp_path, "--budget", 600, "--steps", 8), *flags(workshop, tmp_path)]
    output = tmp_path / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=rank_environment(os.environ), start_new_session=True
        )
    try:
        while "trial 1:" not in output.read_text() and process.poll() is None:
            time.sleep(0.2)
        scratch = str(scratch_folders(tmp_path)[0])
        while not (Path(scratch) / "trial-2" / "logs").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130, output.read_text()
    finally:
        process.kill()
    assert "interrupted; what is known so far:" in output.read_text() and "<- best" in output.read_text()
    assert "Traceback" not in output.read_text()
    assert scratch_folders(tmp_path) == [] and not (tmp_path / "tuned.yaml").exists()
    deadline = time.monotonic() + 20
    while left := [
        each for each in psutil.process_iter(["cmdline"]) if scratch in " ".join(each.info["cmdline"] or [])
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
