"""Launchers of Open MPI that were killed, and later ones that are given their process ids.

Every host here has process ids of its own that begin at 1, as a container has that is started again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from cluster.waiting import settled
from conftest import rank_environment, script

pytestmark = pytest.mark.cluster
ENV = rank_environment(os.environ)
FORMER_IDS = range(1, 1000)


@pytest.fixture
def left_behind(tmp_path: Path) -> Path:
    """Kill a real mpirun and return the session folder that it has left."""
    process = subprocess.Popen(
        [script("mpirun"), "-np", "1", "sleep", "600"], env={**ENV, "TMPDIR": str(tmp_path)}, start_new_session=True
    )
    folder = tmp_path / f"ompi.{process.pid}"
    try:
        assert settled(lambda: (folder / "1" / "0").exists()), "mpirun has not started its rank"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return folder


def leave_on(cluster, host: str, left_behind: Path, launcher: str = "ompi") -> None:
    """Put a session folder among a host's temporary files, as left by each of many processes there."""
    here, process_id = socket.gethostname(), left_behind.suffix[1:]
    names = [each.name for each in left_behind.iterdir() if each.is_file()]
    copies = left_behind.parent / f"of-{host}"
    for number in FORMER_IDS:
        copy = copies / f"{launcher}.{number}"
        copy.mkdir(parents=True)
        for name in names:
            shutil.copy(left_behind / name, copy / name.replace(process_id, str(number)).replace(here, host))
    assert cluster.run(host, ["cp", "-r", f"{copies}/.", "/tmp"]).returncode == 0


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_on_this_machine_a_later_one_starts(make_cluster, left_behind, launcher):
    cluster = make_cluster("a")
    leave_on(cluster, "a", left_behind)
    held_up = cluster.run("a", [script("mpirun"), "-np", "1", "true"], env=ENV)
    assert "PMIx server's listener thread failed to start" in held_up.output
    words = ["run", "-np", "2", "--no-check", "--launcher", launcher, "--", "echo", "started"]
    done = cluster.run("a", [script("ringtune-launch"), *words], env=ENV)
    assert done.returncode == 0 and done.output.count("] started") == 2, done.output


def test_on_another_host_a_later_daemon_starts(make_cluster, left_behind):
    cluster = make_cluster("a", "b")
    leave_on(cluster, "b", left_behind, "prted")
    mpirun = ["mpirun", "-np", "2", "-H", "a:1,b:1", "--map-by", "ppr:1:node", "echo", "started"]
    assert "A daemon failed to report back" in cluster.run("a", mpirun, env=ENV).output
    done = cluster.run("a", [script("ringtune-launch"), "run", "-H", "a:1,b:1", "--", "echo", "started"], env=ENV)
    assert done.returncode == 0 and done.output.count("] started") == 2, done.output
