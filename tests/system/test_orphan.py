"""A rank whose launcher was killed ends within seconds, whatever stands between the two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Workshop, script
from ringtune.launch.verify import rank_environment
from ringtune.train import orphan

pytestmark = pytest.mark.system
LIMIT_S = 120
RANKS = 2
MPIRUN = ["mpirun", "-np", str(RANKS), "--bind-to", "none"]
#: Commands that start ranks, and what of them is killed.
LAUNCHERS = {
    "mpirun": MPIRUN,
    "a script of the shell under mpirun": [*MPIRUN, "sh", "-c", '"$@"; exit $?', "sh"],
    "horovodrun --gloo": ["horovodrun", "--gloo", "-np", str(RANKS)],
    "horovodrun --mpi": ["horovodrun", "--mpi", "-np", str(RANKS)],
}


def processes_with(word: str) -> set[int]:
    """Return the processes that have a word in their command line, launchers and shells too."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in os.fsdecode((folder / "cmdline").read_bytes()).split("\0") and int(folder.name) != os.getpid():
                found.add(int(folder.name))
        except OSError:
            continue  # it ended in between
    return found


def wait_for(what, limit_s: float = LIMIT_S) -> bool:
    """Return whether something becomes true in time."""
    deadline = time.monotonic() + limit_s
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(found)


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """Return the run's folder; whatever still runs on it is killed at the end."""
    folder = tmp_path / "run"
    yield folder
    for process in processes_with(str(folder)):
        os.kill(process, signal.SIGKILL)


def start(command: list[str], workshop: Workshop, folder: Path) -> subprocess.Popen[bytes]:
    """Start a run that does not end by itself, and wait until it trains."""
    words = workshop.arguments(folder, max_steps=1_000_000, validation_file=None, save_strategy="no", logging_steps=1)
    command = [script(command[0]), *command[1:], sys.executable, "-m", "ringtune.train.cli", *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**rank_environment(os.environ), "OMP_NUM_THREADS": "1"},
    )
    metrics = folder / "metrics.jsonl"
    assert wait_for(lambda: metrics.exists() and '"event": "train"' in metrics.read_text())
    return process


@pytest.mark.parametrize("name", LAUNCHERS)
def test_its_ranks_end_when_a_launcher_is_killed(name, workshop, folder):
    launcher = start(LAUNCHERS[name], workshop, folder)
    assert len(processes_with(str(folder))) >= RANKS
    launcher.kill()
    launcher.wait()
    assert wait_for(lambda: not processes_with(str(folder)), 30), processes_with(str(folder))


def test_a_run_goes_on_when_the_shell_that_put_its_launcher_into_the_background_ends(workshop, folder):
    shell = start(["/bin/sh", "-c", '"$@" & wait', "sh", script("mpirun"), *MPIRUN[1:]], workshop, folder)
    shell.kill()
    shell.wait()
    metrics = folder / "metrics.jsonl"
    steps = len(metrics.read_text().splitlines())
    time.sleep(3 * orphan.CHECK_EVERY_S)
    assert wait_for(lambda: len(metrics.read_text().splitlines()) > steps + 10)


def test_without_a_launcher_nothing_is_watched():
    assert orphan.up_to_launcher(os.getpid(), "NO_SUCH_VARIABLE")[os.getpid()] == os.getppid()
    before = {each.name for each in orphan.threading.enumerate()}
    orphan.end_with_launcher({})
    assert {each.name for each in orphan.threading.enumerate()} == before


def test_wrappers_are_followed_up_to_the_launcher():
    # What stands above the tests, a shell of make perhaps, has no rank.
    code = (
        "import os; from ringtune.train import orphan; found = orphan.up_to_launcher(os.getpid(), 'MY_RANK'); "
        "print(sum('MY_RANK' in orphan._environment_of(each) for each in found))"
    )
    inner = [sys.executable, "-c", code]
    wrapped = ["sh", "-c", '"$@"; true', "sh", "sh", "-c", '"$@"; true', "sh", *inner]
    for command, number in ((inner, 1), (wrapped, 3)):
        done = subprocess.run(command, env={**os.environ, "MY_RANK": "0"}, capture_output=True, text=True, check=True)
        assert int(done.stdout) == number
