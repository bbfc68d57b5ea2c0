"""Ranks on two hosts whose launcher is killed, started by plain mpirun and horovodrun: nothing is left on either."""

from __future__ import annotations

import os
import signal

import pytest
from cluster.desk import copied
from cluster.waiting import settled
from conftest import rank_environment, script

pytestmark = pytest.mark.cluster
ENV = {**rank_environment(os.environ), "OMP_NUM_THREADS": "1"}
LAUNCHERS = {
    "mpirun": ["mpirun", "-np", "2", "-H", "a:1,b:1", "-x", "PATH", "-x", "OMP_NUM_THREADS"],
    "horovodrun --gloo": ["horovodrun", "--gloo", "-np", "2", "-H", "a:1,b:1"],
    "horovodrun --mpi": ["horovodrun", "--mpi", "-np", "2", "-H", "a:1,b:1"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_nothing_is_left_on_two_hosts_of_a_launcher_that_is_killed(make_cluster, workshop, tmp_path, launcher):
    cluster, here = make_cluster("a", "b"), copied(workshop, tmp_path)
    flags = here.arguments(tmp_path / "run", max_steps=100_000, save_strategy="no")
    process = cluster.popen("a", [*LAUNCHERS[launcher], script("ringtune-train"), *flags], env=ENV)
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert settled(lambda: metrics.exists() and metrics.stat().st_size > 0, 90), process.poll()
    os.kill(min(cluster.pids_on("a")), signal.SIGKILL)  # the launcher: what was started first
    assert settled(lambda: not cluster.command_lines(), 40), cluster.command_lines()
    process.communicate()
