"""What ringtune-slurm says of jobs that only SLURM's accounting remembers: a real slurmdbd with a MariaDB."""

from __future__ import annotations

import signal

import pytest
from cluster.desk import Desk
from cluster.waiting import settled

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def mine(desk) -> Desk:
    return desk("n1", accounted=True)


def accounted(mine: Desk, job: str) -> tuple[str, str]:
    """Return state and nodes of a job by sacct, once slurmctld has forgotten it."""

    def is_forgotten() -> bool:
        done = mine.sh("squeue", "-h", "-t", "all", "-o", "%A")
        return done.returncode == 0 and job not in done.output.split()

    assert settled(is_forgotten, 90, every_s=1.0), mine.sh("squeue", "-t", "all").output
    return by_sacct(mine, job)


def by_sacct(mine: Desk, job: str) -> tuple[str, str]:
    """Return state and nodes of a job, "" where the accounting does not know it."""
    words = mine.sh("sacct", "-n", "-X", "-P", "-j", job, "-o", "State,NodeList").output.strip().split("|")
    return words[0].partition(" ")[0], words[-1].replace("None assigned", "")


def test_status_agrees_with_sacct_whatever_became_of_a_job(mine):
    ends = {}
    mine.submit("--ntasks=1", run="good", max_steps=2)
    ends["good"] = "COMPLETED"
    mine.submit("--ntasks=1", run="bad", model_name_or_path=mine.folder / "rows.csv")
    ends["bad"] = "FAILED"
    mine.submit("--ntasks=1", "--hold", run="cancelled", max_steps=2)
    ends["cancelled"] = "CANCELLED"
    cancelled = mine.status(mine.folder / "cancelled")["job_id"]
    assert mine.sh("scancel", cancelled).returncode == 0  # past ringtune-slurm: only SLURM knows it
    for run, state in ends.items():
        mine("wait", mine.folder / run)
        found = mine.status(mine.folder / run)
        assert accounted(mine, found["job_id"]) == (state, "" if run == "cancelled" else "n1")
        found = mine.status(mine.folder / run)
        assert (found["state"], found["nodes"]) == accounted(mine, found["job_id"]), found
        assert "accounting" not in found["reason"], found


def test_tasks_of_a_sweep_that_were_cancelled_before_they_started_are_told(mine):
    """sacct has one line for them all."""
    mine.submit("--ntasks=1", "--hold", "--sweep", "seed=1..4", run="sweep", max_steps=2)
    array = mine.status(mine.folder / "sweep" / "seed=1")["job_id"].partition("_")[0]
    assert mine.sh("scancel", array).returncode == 0
    assert accounted(mine, array)[0] == "CANCELLED"
    for seed in range(1, 5):
        assert mine.status(mine.folder / "sweep" / f"seed={seed}")["state"] == "CANCELLED"


def test_an_accounting_that_is_away_or_slow_or_purged_or_wrong_is_lived_without(mine):
    job = mine.submit("--ntasks=1", "--hold", max_steps=2)
    assert mine.sh("scancel", job).returncode == 0
    assert accounted(mine, job)[0] == mine.status()["state"] == "CANCELLED"
    # As where the record of the end was lost: slurmctld does not know the job, so it runs no more.
    assert mine.slurm.accounting.sql("update test_job_table set state = 1, time_end = 0").returncode == 0
    assert by_sacct(mine, job)[0] == "RUNNING" and mine.status()["state"] == "LOST"
    # As slurmdbd's PurgeJobAfter does.
    assert mine.slurm.accounting.sql("delete from test_job_table").returncode == 0
    assert by_sacct(mine, job) == ("", "")
    found = mine.status()
    assert (found["state"], found["reason"]) == ("LOST", ""), found
    login = mine.slurm.cluster
    login.kill_on("login", "slurmdbd", signal.SIGSTOP)  # it answers nobody
    done = mine.sh("ringtune-slurm", "status", mine.folder / "run", limit_s=60)
    assert "LOST" in done.output and "the accounting does not answer" in done.output, done.output
    login.kill_on("login", "slurmdbd")
    found = mine.status()
    assert found["state"] == "LOST" and "the accounting does not answer" in found["reason"], found
    assert "Connection refused" in found["reason"] and "\n" not in found["reason"], found
    mine.slurm.accounting.start_slurmdbd()
    assert settled(lambda: mine.status()["reason"] == "", 30, every_s=0.5), mine.status()
