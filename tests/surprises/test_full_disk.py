"""A disk that is full, or may not be written to, is named in one line with exit code 2, whoever launches the ranks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import FAULTS, Done, predict, run_command, script
from ringtune.train.board import Board
from ringtune.train.contract import UsageError, as_usage
from ringtune.train.metrics import MetricsFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a file system of some KiB, unmounted when the test ends."""
    with ExitStack() as stack:

        def mount(name: str, kib: int) -> Path:
            folder = tmp_path / name
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield mount


def fill(folder: Path) -> None:
    """Leave no room in a folder's file system."""
    with (folder / "ballast").open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            return


LAUNCHERS = {
    "mpirun": [script("mpirun"), "-np", "2", "--bind-to", "none"],
    "horovodrun": [script("horovodrun"), "--gloo", "-np", "2"],
    "ringtune-launch": [script("ringtune-launch"), "run", "-np", "2", "--"],
}


def assert_one_line(done: Done, where: Path, words: str) -> None:
    lines = [line for line in done.output.splitlines() if words in line]
    if "horovod/runner" in done.output:  # horovodrun ends so whatever its ranks end with
        assert done.returncode == 1 and "Exit code: 2" in done.output and done.output.count("Traceback") == 1
    else:
        assert done.returncode == 2 and "Traceback" not in done.output, done.output
    assert len(lines) == 1 and str(where) in lines[0], done.output
    assert "rank 1 of 2 (host" not in done.output, done.output


@pytest.mark.system
@pytest.mark.parametrize(
    "launcher",
    ["mpirun", *(pytest.param(name, marks=pytest.mark.long) for name in ("horovodrun", "ringtune-launch"))],
)
def test_at_a_checkpoint(workshop, small_disk, launcher):
    disk = small_disk("disk", 800)  # a checkpoint has about 300
    words = workshop.arguments(disk / "run", save_steps=2, report_to="none")
    done = run_command([*LAUNCHERS[launcher], script("python"), str(FAULTS), "--", *words])
    assert_one_line(done, disk / "run" / "checkpoint-", "the disk is full: ")
    match = re.search(r"the disk is full: (\d+) bytes needed, (\d+) were free", done.output)
    assert match is not None and int(match[1]) > int(match[2]), done.output
    assert not list((disk / "run").glob(".checkpoint-*"))


@pytest.mark.system
def test_in_the_cache(workshop, small_disk, tmp_path):
    disk = small_disk("disk", 64)
    fill(disk)
    done = workshop.train(2, tmp_path / "run", cache_dir=disk / "cache")
    assert_one_line(done, disk / "cache", "there is no room left")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.system
def test_in_a_prediction(workshop, reference, small_disk):
    disk = small_disk("disk", 64)
    fill(disk)
    done = predict(2, reference(1), workshop.dev, disk / "out.jsonl")
    assert_one_line(done, disk, "No space left on device")


@pytest.mark.system
def test_a_folder_that_may_not_be_written_to_is_named_and_not_the_holder_of_its_lock(workshop, small_disk):
    disk = small_disk("disk", 64)
    (disk / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = workshop.train(2, disk / "run")
    assert_one_line(done, disk / "run", "Read-only file system")
    assert "holder" not in done.output


def test_in_the_metrics():
    with pytest.raises(OSError) as caught:
        MetricsFile(Path("/dev/full")).write({"event": "train", "step": 1})
    usage = as_usage(caught.value)
    assert isinstance(usage, UsageError) and str(usage).startswith("/dev/full: No space left on device; ")


def test_in_the_curves(small_disk, capfd):
    disk = small_disk("disk", 64)
    board = Board(disk / "tensorboard", 0)
    fill(disk)
    with pytest.raises(OSError) as caught:
        for step in range(20_000):
            board.add("train", {"loss": 0.5, "a name that takes some room": 1.0}, step)
        board.close()
    assert str(as_usage(caught.value)).startswith(f"{disk / 'tensorboard'}: No space left on device; ")
    assert "Traceback" not in capfd.readouterr().err
    shutil.rmtree(disk / "tensorboard")
