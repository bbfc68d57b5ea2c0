"""ringtune-slurm on a real SLURM: jobs that finish by themselves, whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import statistics

import pytest
from cluster.desk import LONG, TWO_NODES, start
from cluster.waiting import settled
from conftest import digests, ranks, records, short_demo
from ringtune.train.contract import cache_folder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_a_submitted_demo_completes_on_two_nodes_with_the_bits_it_has_without_slurm(desk, tmp_path):
    mine = desk("n1", "n2")
    done = mine("submit", *TWO_NODES, "--time", "10", "--", *short_demo(tmp_path / "run")[1:])
    assert done.returncode == 0, done.output
    followed = mine("logs", "-f", tmp_path / "run")
    assert followed.returncode == 0 and followed.output.endswith("ringtune-slurm: finished: finished\n"), (
        followed.output
    )
    found = mine.finish()
    assert (found["state"], found["step"], found["total_steps"], found["requeues"]) == ("COMPLETED", 2, 2, 0), found
    alone = ranks(1, "-m", "ringtune.train.cli", *short_demo(tmp_path / "alone")[1:])
    assert alone.returncode == 0, alone.output
    assert digests(tmp_path / "run", 2) == digests(tmp_path / "alone", 2)
    assert records(tmp_path / "run", "eval") == records(tmp_path / "alone", "eval")
    # What is kept of it
    kept = tmp_path / "run" / "slurm"
    assert "#SBATCH --nodes=2" in (kept / "job.sbatch").read_text()
    assert "mode: exact" in (kept / "config.yaml").read_text()
    submission = json.loads((kept / "submission.json").read_text())
    assert submission["versions"]["torch"].startswith("2.13") and submission["argv"][0] == "submit"
    log = mine.log()
    assert "ok   link      n1-n2" in log and "[0] rank 1  host n2  local_rank 0 of 1" in log, log
    assert mine("logs", found["job_id"], "--rank", 0).output.count("rank 1  host n2") == 1
    # From anywhere, by the id alone
    assert f"{found['job_id']}  COMPLETED  on n[1-2]" in mine("status", found["job_id"]).output
    assert cache_folder() != mine.env["RINGTUNE_CACHE"]


def test_a_job_whose_time_is_too_short_requeues_itself_until_it_has_finished(desk, workshop, tmp_path):
    """Nobody touches it. The parameters are those of a run that was never stopped, no row is lost or repeated.

    A start does 1,300 steps on two idle cores, and has done 80 on busy ones: more than it can do now are asked for.
    """
    settings = {**LONG, "save_steps": None, "save_strategy": "no"}
    assert workshop.train(2, tmp_path / "pace", **{**settings, "max_steps": 60}).returncode == 0
    lines = map(json.loads, (tmp_path / "pace" / "metrics.jsonl").read_text().splitlines())
    steps = [each["tokens_per_s"] / each["num_tokens"] for each in lines if each["event"] == "train"]
    num_steps = settings["max_steps"] = min(2000, max(150, round(1.5 * 30 * statistics.median(steps))))
    mine = desk("n1", "n2")
    mine.submit(*TWO_NODES, "--time=1", "--signal=USR1@30", **settings)
    found = mine.finish(limit_s=900)
    assert found["state"] == "COMPLETED" and found["requeues"] >= 1, mine.log()
    reasons = [each["reason"] for each in mine.events("ended")]
    # On a machine with much else to do, ranks may need more than the 30 s until the warning to start.
    slow = "stopped by SIGUSR1 before the ranks had started"
    assert reasons[-1] == "finished" and set(reasons) - {slow} == {"stopped by SIGUSR1 with a checkpoint", "finished"}
    done = workshop.train(0, tmp_path / "whole", **settings)
    assert done.returncode == 0, done.output
    mine.finished_as(tmp_path / "whole", num_steps)


def test_an_operators_requeue_and_an_operators_signal_lose_nothing(desk, whole):
    mine = desk("n1", "n2")
    job = start(mine)["job_id"]
    assert mine.sh("scontrol", "requeue", job).returncode == 0
    again = mine.until(lambda found: found["requeues"] == 1 and found["state"] == "RUNNING" and found["step"] >= 100)
    assert again["job_id"] == job
    assert mine.sh("scancel", "--signal=USR1", job).returncode == 0  # to the ranks: they save, the batch step requeues
    found = mine.finish()
    assert (found["state"], found["requeues"]) == ("COMPLETED", 2), mine.log()
    mine.finished_as(whole, 400)
    assert [each["decision"] for each in mine.events("ended")] in (
        ["requeue", "finished"],
        ["slurm", "requeue", "finished"],
    )


def test_a_killed_rank_and_a_killed_launcher_are_told_and_gone_on_from(desk, whole):
    mine = desk("n1", "n2")
    start(mine)
    for pid in mine.slurm.cluster.pids_on("n2", "ringtune-train --config")[-1:]:
        os.kill(pid, signal.SIGKILL)
    mine.until(lambda found: found["requeues"] == 1 and found["state"] == "RUNNING" and found["step"] >= 100)
    mine.slurm.cluster.kill_on("n1", "ringtune.launch.cli run")
    found = mine.finish()
    assert (found["state"], found["requeues"]) == ("COMPLETED", 2), mine.log()
    reasons = [each["reason"] for each in mine.events("ended")]
    assert reasons == ["rank 1 of 2 (host n2): killed by SIGKILL", "the launcher ended with code 137", "finished"]
    mine.finished_as(whole, 400)


def test_a_preempted_job_goes_on_when_the_urgent_one_is_done(desk, whole):
    mine = desk("n1", "n2")
    job = start(mine)["job_id"]
    urgent = mine.sh(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--wrap", "sleep 2", "--output=/dev/null"
    )
    assert urgent.returncode == 0, urgent.output
    found = mine.finish()
    assert (found["state"], found["job_id"], found["requeues"]) == ("COMPLETED", job, 1), mine.log()
    mine.finished_as(whole, 400)


@pytest.mark.long
def test_a_slurmctld_that_is_away_changes_nothing_and_is_waited_for_where_it_is_needed(desk, whole):
    mine = desk("n1", "n2")
    start(mine)

    def kill_slurmctld() -> None:
        mine.slurm.cluster.kill_on("login", "slurmctld")

    kill_slurmctld()
    [batch_step] = mine.slurm.cluster.pids_on("n1", "ringtune.slurm.batch")
    os.kill(batch_step, signal.SIGUSR1)  # the warning before the end of its time: it has to requeue, and cannot yet
    assert settled(lambda: not mine.slurm.cluster.pids_on("n1", "ringtune-train --config"), 60), mine.log()
    away = mine.status()
    assert away["requeues"] == 0 and 50 <= away["checkpoint_step"] < LONG["max_steps"], away
    mine.slurm.start_slurmctld()
    mine.until(lambda found: found["requeues"] == 1 and found["state"] == "RUNNING" and found["step"] >= 100)
    kill_slurmctld()
    mine.slurm.start_slurmctld()
    found = mine.finish()
    assert (found["state"], found["requeues"]) == ("COMPLETED", 1), mine.log()
    mine.finished_as(whole, 400)


@pytest.mark.parametrize(
    ("killed", "left"), [("n1", ["n2", "n3"]), pytest.param("n2", ["n1", "n3"], marks=pytest.mark.long)]
)
def test_a_node_whose_slurmd_is_killed_is_left_for_another(desk, whole, killed, left):
    """All that runs there dies, SLURM's own first. With the first node the batch step does: the next start says so."""
    mine = desk("n1", "n2", "n3")
    lost = start(mine)["nodes"]
    assert lost == "n[1-2]"
    for word in ("slurmstepd", "slurmd", "srun", "ringtune"):
        mine.slurm.cluster.kill_on(killed, word)
    found = mine.finish()
    assert found["state"] == "COMPLETED" and found["requeues"] >= 1, mine.log()
    assert mine.events("started")[-1]["nodes"] == left
    assert len(mine.events("ended")) == len(mine.events("started"))  # each with its reason
    mine.finished_as(whole, 400)


def test_a_cluster_that_forbids_requeueing_gets_a_job_behind_the_first(desk, whole):
    mine = desk("n1", "n2")
    first = start(mine, *TWO_NODES, "--no-requeue")["job_id"]
    assert mine.sh("scancel", "--batch", "--signal=USR1", first).returncode == 0
    found = mine.finish()
    assert found["state"] == "COMPLETED" and found["job_id"] != first and found["requeues"] == 1, mine.log()
    assert "requeueing is forbidden here" in mine.log() and f"job {found['job_id']} goes on" in mine.log()
    mine.finished_as(whole, 400)


def test_a_cancelled_run_goes_on_by_resume_and_by_mpirun(desk, whole):
    mine = desk("n1", "n2")
    job = start(mine, *TWO_NODES, "--launcher", "mpirun")["job_id"]
    assert '"state": "STALLED"' in mine("status", job, "--json", "--stalled-after", 0).output
    waited = mine("wait", job, "--timeout", 0)
    assert waited.returncode == 2 and "--timeout: not over after 0 s" in waited.output, waited.output
    refused = mine("resume", job)
    assert refused.returncode == 2 and f"job {job} of it is RUNNING" in refused.output, refused.output
    assert f"job {job} cancelled at step" in mine("cancel", job).output
    mine.until(lambda found: found["state"] == "CANCELLED")
    assert "every run is over" in mine("cancel", job).output
    done = mine("resume", job, "--time=7")
    assert done.returncode == 0, done.output
    found = mine.finish()
    assert found["state"] == "COMPLETED" and found["job_id"] == done.output.split()[-1], mine.log()
    mine.finished_as(whole, 400)
    assert "finished already" in mine("resume", job).output


def test_a_run_that_crashes_at_step_0_stops_after_the_stated_tries_with_its_last_line(desk):
    mine = desk("n1")
    broken = mine.folder / "broken" / "tensorboard"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise RuntimeError("planted failure")\n')
    (mine.folder / "profile.yaml").write_text(f"setup: ['export PYTHONPATH={broken.parent}']\n")
    mine.submit("--ntasks=1", "--max-tries", 2, "--profile", mine.folder / "profile.yaml", report_to="tensorboard")
    found = mine.finish()
    assert (found["state"], found["requeues"], found["step"]) == ("FAILED", 1, 0), mine.log()
    assert len(mine.events("started")) == 2
    assert found["last_line"] == "RuntimeError: planted failure"
    assert "2 tries without a step more (--max-tries)" in found["reason"]
    portrait = mine("status", mine.folder / "run").output
    assert "last line:   RuntimeError: planted failure" in portrait, portrait
