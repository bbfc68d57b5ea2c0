"""Files of the working folder with the names of Python's modules are the program's own, and nobody else's."""

from __future__ import annotations

import subprocess

import pytest
from ringtune.launch.commands import which

NAMES = ("random", "copy", "socket", "json", "types", "logging", "ringtune", "horovod")


@pytest.fixture
def folder(tmp_path):
    """Return a folder in which every module says who imports it, and fails."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of the working folder was imported')")
    (tmp_path / "mine.py").write_text("print('mine ran')")
    return tmp_path


@pytest.mark.parametrize("launcher", [["mpirun"], ["horovodrun", "--controller", "gloo"]], ids=["mpirun", "gloo"])
def test_the_launcher_and_the_keeper_of_a_rank_never_import_from_it(folder, launcher):
    words = [which("ringtune-launch"), "run", "-np", "2", "--launcher", *launcher, "--", "python", "-P", "mine.py"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.count("mine ran") == 2, done.stdout + done.stderr
    assert "of the working folder" not in done.stdout + done.stderr


def test_the_users_own_program_still_does(folder):
    (folder / "mine.py").write_text("import random")
    words = [which("ringtune-launch"), "run", "-np", "1", "--", "python", "mine.py"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "the random.py of the working folder was imported" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["ringtune-train", "--help"], ["ringtune-predict", "--help"], ["ringtune-slurm", "-h"]]
)
def test_no_command_imports_from_it(folder, words):
    done = subprocess.run([which(words[0]), words[1]], cwd=folder, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0 and b"usage" in done.stdout
