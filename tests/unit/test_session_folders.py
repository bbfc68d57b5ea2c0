"""Which folders of killed launchers are removed, and which are somebody else's."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from ringtune.launch.session_folders import remove_left_behind


@pytest.fixture
def ended() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def session_folder(
    parent: Path, process_id: int | str, launcher: str = "ompi", host: str = socket.gethostname()
) -> Path:
    """Return a folder of the form that Open MPI 5.0.11 leaves."""
    folder = parent / f"{launcher}.{process_id}"
    (folder / "0" / "0").mkdir(parents=True)
    for name in (f"pmix.{host}.tool", f"pmix.{host}.tool.{process_id}", "hwloc.sm"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("launcher", ["ompi", "prted"])
def test_the_folder_of_an_ended_process_is_removed(tmp_path, ended, launcher):
    folder = session_folder(tmp_path, ended, launcher)
    remove_left_behind({"TMPDIR": str(tmp_path), "TMP": "/nowhere"})
    assert not folder.exists()


def test_folders_of_others_stay(tmp_path, ended, monkeypatch):
    kept = [
        session_folder(tmp_path, os.getpid()),
        session_folder(tmp_path, ended, host="another"),
        session_folder(tmp_path, f"{ended}.old"),
        session_folder(tmp_path, ended, "another"),
    ]
    remove_left_behind({"TEMP": str(tmp_path)})
    of_a_user = session_folder(tmp_path / "theirs", ended)
    monkeypatch.setattr(os, "geteuid", lambda: of_a_user.stat().st_uid + 1)
    for parent in (tmp_path / "theirs", tmp_path / "none"):
        remove_left_behind({"TMPDIR": str(parent)})
    assert all(each.exists() for each in [*kept, of_a_user])
