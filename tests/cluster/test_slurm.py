"""ringtune-slurm on a real SLURM: jobs that finish by themselves, whatever happens to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster.hosts import Done
from cluster.slurm import Slurm
from cluster.test_run import settled
from conftest import Workshop, digests, rank_environment, ranks, records, script, short_demo
from ringtune.train.contract import cache_folder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


class Desk:
    """A user's desk: a SLURM, a folder that all hosts see, a tiny model and rows in it, and the command."""

    def __init__(self, slurm: Slurm, workshop: Workshop, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        for each in (workshop.model, workshop.rows, workshop.dev):
            (shutil.copytree if each.is_dir() else shutil.copy)(each, folder / each.name)
        self.here = Workshop(folder / "model", folder / "rows.csv", folder / "dev.csv", folder / "tokens")
        self.env = {**rank_environment(os.environ), "RINGTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def sh(self, *command: object, limit_s: float = 120) -> Done:
        return self.slurm.run([str(word) for word in command], env=self.env, limit_s=limit_s)

    def __call__(self, *words: object, limit_s: float = 200) -> Done:
        return self.sh(script("ringtune-slurm"), *words, limit_s=limit_s)

    def submit(self, *words: object, run: str = "run", doctor: bool = False, **changes: object) -> str:
        """Submit a run of the tiny model and return its job's id."""
        flags = self.here.arguments(self.folder / run, **changes)
        done = self("submit", *words, *([] if doctor else ["--no-doctor"]), "--", *flags)
        assert done.returncode == 0, done.output
        return done.output.split()[-1]

    def status(self, target: object = "") -> dict:
        found = json.loads(self("status", target or self.folder / "run", "--json").output)
        assert len(found) == 1
        return found[0]

    def until(self, condition: Callable[[dict], bool], limit_s: float = 90) -> dict:
        """Wait until the run's status is as wanted and return it."""
        seen: list[dict] = []

        def is_so() -> bool:
            seen.append(self.status())
            return condition(seen[-1])

        assert settled(is_so, limit_s), f"{seen[-1]}\n{self.log()}\n{self.slurm.logs()}"
        return seen[-1]

    def finish(self, limit_s: float = 200) -> dict:
        """Wait for the run's end and return its status."""
        done = self("wait", self.folder / "run", "--timeout", limit_s - 5, limit_s=limit_s)
        found = self.status()
        assert found["is_over"], f"{done.output}\n{self.log()}"
        assert (done.returncode == 0) == (found["state"] == "COMPLETED"), done.output
        return found

    def log(self) -> str:
        return self("logs", self.folder / "run").output

    def events(self, kind: str, run: str = "run") -> list[dict]:
        lines = (self.folder / run / "slurm" / "events.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["event"] == kind]

    def finished_as(self, whole: Path, step: int) -> None:
        """Assert that the run ended bitwise like an uninterrupted one, every row of every step seen once."""
        assert digests(self.folder / "run", step) == digests(whole, step)
        rows = [[sorted(each["rows"]) for each in records(folder, "rows")] for folder in (self.folder / "run", whole)]
        assert rows[0] == rows[1] and len(rows[0]) == step


@pytest.fixture
def desk(make_slurm, workshop: Workshop, tmp_path: Path) -> Callable[..., Desk]:
    return lambda *nodes, **options: Desk(make_slurm(*nodes, **options), workshop, tmp_path)


#: A run that lasts long enough for things to happen to it.
LONG = {
    "mode": "exact",
    "num_shards": 2,
    "max_steps": 400,
    "save_steps": 50,
    "save_total_limit": 2,
    "eval_strategy": "no",
}


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
    """Nobody touches it. The last parameters are those of a run that was never stopped, and no row is lost or repeated."""
    settings = {**LONG, "max_steps": 2400, "save_steps": None, "save_strategy": "no"}
    mine = desk("n1", "n2")
    mine.submit(*TWO_NODES, "--time=1", "--signal=USR1@30", **settings)
    found = mine.finish(limit_s=480)
    assert found["state"] == "COMPLETED" and found["requeues"] >= 2, mine.log()
    assert {each["reason"] for each in mine.events("ended")} == {"stopped by SIGUSR1 with a checkpoint", "finished"}
    done = workshop.train(0, tmp_path / "whole", **settings)
    assert done.returncode == 0, done.output
    mine.finished_as(tmp_path / "whole", 2400)


def start(mine: Desk, *words: object, until_step: int = 50, **changes: object) -> dict:
    """Submit a long run on two nodes and wait until it has a checkpoint."""
    mine.submit(*(words or TWO_NODES), **{**LONG, **changes})
    return mine.until(lambda found: found["state"] == "RUNNING" and (found["checkpoint_step"] or 0) >= until_step)


@pytest.fixture(scope="module")
def whole(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long run, never stopped, without SLURM and on one rank."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = workshop.train(0, folder, **LONG)
    assert done.returncode == 0, done.output
    return folder


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
    for pid in mine.slurm.cluster.pids_on("n1", "ringtune.launch.cli run"):
        os.kill(pid, signal.SIGKILL)
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


def test_a_slurmctld_that_is_away_changes_nothing_and_is_waited_for_where_it_is_needed(desk, whole):
    mine = desk("n1", "n2")
    start(mine)

    def kill_slurmctld() -> None:
        for pid in mine.slurm.cluster.pids_on("login", "slurmctld"):
            os.kill(pid, signal.SIGKILL)

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


@pytest.mark.parametrize(("killed", "left"), [("n1", ["n2", "n3"]), ("n2", ["n1", "n3"])])
def test_a_node_whose_slurmd_is_killed_is_left_for_another(desk, whole, killed, left):
    """All that runs there dies, SLURM's own first. With the first node the batch step does: the next start says so."""
    mine = desk("n1", "n2", "n3")
    lost = start(mine)["nodes"]
    assert lost == "n[1-2]"
    for word in ("slurmstepd", "slurmd", "srun", "ringtune"):
        for pid in mine.slurm.cluster.pids_on(killed, word):
            os.kill(pid, signal.SIGKILL)
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


def test_a_wrong_request_is_told_in_sbatchs_own_words_and_the_script_is_kept(desk):
    mine = desk("n1")
    flags = mine.here.arguments(mine.folder / "run")
    for option, words in (
        ("--partition=bogus", "invalid partition specified: bogus"),
        (
            "--nodes=9",
            "Node count specification invalid|Requested node configuration is not available|More processors requested",
        ),
        ("--time=soon", "Invalid --time specification"),
    ):
        done = mine("submit", option, "--", *flags)
        assert done.returncode == 2 and done.output.count("\n") == 1, done.output
        assert any(each in done.output for each in words.split("|")), done.output
        script_path = mine.folder / "run" / "slurm" / "job.sbatch"
        assert str(script_path) in done.output and f"#SBATCH {option}" in script_path.read_text()
        assert mine.status()["state"] == "NOT SUBMITTED"


def test_a_set_up_line_that_fails_is_told_by_status(desk):
    mine = desk("n1")
    (mine.folder / "profile.yaml").write_text("setup: ['echo no such module: torch >&2', 'false']\n")
    mine.submit("--profile", mine.folder / "profile.yaml", max_steps=2)
    found = mine.finish()
    assert (found["state"], found["last_line"]) == ("FAILED", "no such module: torch"), found


def test_overwriting_is_done_once_and_not_by_every_start_of_the_job(desk, whole):
    mine = desk("n1")
    mine.submit("--ntasks=2", **{**LONG, "max_steps": 4, "learning_rate": 1e-5})
    assert mine.finish()["state"] == "COMPLETED"
    job = start(mine, "--ntasks=2", overwrite_output_dir="true")["job_id"]
    assert mine.sh("scontrol", "requeue", job).returncode == 0
    assert mine.finish()["state"] == "COMPLETED", mine.log()
    assert mine.log().count("[0] going on from") == 1, mine.log()  # the second start, from where the first had come to
    mine.finished_as(whole, 400)


def test_values_of_every_kind_reach_slurm_and_the_run_unchanged(desk):
    mine = desk("n1")
    run = "run 'of' \"many\" $(touch evil) %j;#&"
    comment = 'it\'s "so" $(touch evil) `x` \\ #;'
    mine.submit("--comment", comment, run=run, max_steps=2)
    assert mine("wait", mine.folder / run).returncode == 0, mine("logs", mine.folder / run).output
    assert (mine.folder / run / "finished.json").exists()
    shown = mine.sh("scontrol", "show", "job", mine.status(mine.folder / run)["job_id"]).output
    assert f"Comment={comment}" in shown, shown
    assert not list(mine.folder.rglob("evil")) and not Path("evil").exists()


def test_a_warning_before_the_ranks_have_started_requeues_too(desk):
    mine = desk("n1")
    job = mine.submit("--ntasks=1", doctor=True, max_steps=4)
    assert settled(lambda: len(mine.events("started")) == 1)
    assert mine.sh("scancel", "--batch", "--signal=USR1", job).returncode == 0
    found = mine.finish()
    assert (found["state"], found["requeues"]) == ("COMPLETED", 1), mine.log()
    assert mine.events("ended")[0]["reason"] == "stopped by SIGUSR1 before the ranks had started"


def test_a_node_that_doctor_refuses_is_left_out_of_the_next_start(desk):
    mine = desk("n1", "n2", "n3")
    broken = mine.slurm.cluster.run("n2", ["mount", "-t", "tmpfs", "tmpfs", str(Path(script("python3")).parent)])
    assert broken.returncode == 0
    mine.submit(*TWO_NODES, doctor=True, max_steps=4)
    found = mine.finish()
    assert found["state"] == "COMPLETED", mine.log()
    assert [each["nodes"] for each in mine.events("started")] == [["n1", "n2"], ["n1", "n3"]]
    assert "n2: it has no Python at the path used here" in mine.events("ended")[0]["reason"]


def test_a_sweep_of_four_runs_on_two_nodes_completes_and_its_table_is_that_of_the_metrics_files(desk):
    mine = desk("n1", "n2")
    job = mine.submit(
        "--nodes=1", "--ntasks=1", "--sweep", "learning_rate=1e-3,1e-5", "--sweep", "seed=1..2", max_steps=8
    )
    runs = sorted(each.name for each in (mine.folder / "run").iterdir() if each.name != "slurm")
    assert len(runs) == 4 and runs[0] == "learning_rate=1e-3,seed=1"
    waited = mine("wait", job)
    assert waited.returncode == 0 and "4 COMPLETED" in waited.output, waited.output
    by_rate: dict[str, list[float]] = {}
    for name in runs:
        last = records(mine.folder / "run" / name, "eval")[-1]
        by_rate.setdefault(name.split(",")[0].split("=")[1], []).append(last["eval_loss"])
    rows = json.loads(mine("table", mine.folder / "run", "--json").output)
    assert [row["settings"]["learning_rate"] for row in rows] == ["1e-3", "1e-5"]
    for row in rows:
        first, second = by_rate[row["settings"]["learning_rate"]]
        assert first != second and row["num_finished"] == 2
        assert row["scores"]["loss"] == pytest.approx([(first + second) / 2, abs(first - second) / 2**0.5])
    shown = mine("table", mine.folder / "run").output
    assert f"{rows[0]['scores']['loss'][0]:.4f} ± {rows[0]['scores']['loss'][1]:.4f}" in shown, shown
    assert mine("status", job).output.count("COMPLETED") == 4


def test_a_job_that_slurm_has_forgotten_is_told_from_its_run_directory(desk):
    mine = desk("n1")
    job = mine.submit("--ntasks=1", max_steps=2)
    assert mine.finish()["state"] == "COMPLETED"
    for pid in mine.slurm.cluster.pids_on("login", "slurmctld"):
        os.kill(pid, signal.SIGKILL)
    away = mine.status(job)
    assert away["state"] == "COMPLETED" and "SLURM does not answer" in away["reason"], away
    for each in mine.slurm.state.glob("job_state*"):
        each.unlink()  # what it would know the job by
    mine.slurm.start_slurmctld()
    assert settled(lambda: "Invalid job id" in mine.sh("scontrol", "show", "job", job).output)
    assert (mine.status(job)["state"], mine.status(job)["step"]) == ("COMPLETED", 2)


#: Stands in for apptainer, which no registry here has: it shows that the ranks are started through it, not that a
#: container works.
FAKE_APPTAINER = (
    '#!/bin/sh\n[ "$1 $2 $3" = "exec --nv image.sif" ] || exit 9\nshift 3\necho "not a real container"\nexec "$@"\n'
)


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("cpu", ["--ntasks-per-node=2"]),
        ("gpu", ["--gpus-per-node=1", "--ntasks-per-node=1"]),
        ("multinode", ["--gpus-per-node=1", "--ntasks-per-node=1"]),
        ("container", ["--gpus-per-node=1", "--ntasks-per-node=1"]),
    ],
)
def test_the_examples_run_as_they_are_but_for_their_size(desk, name, smaller):
    """The GPUs are counted by SLURM and there are none: the ranks compute on the CPU, and NCCL is not used."""
    mine = desk(*(["n1", "n2"] if name == "multinode" else ["n1"]))
    config = mine.folder / "my.yaml"
    flags = mine.here.arguments(mine.folder / "run", max_steps=6 if name != "cpu" else LONG["max_steps"])
    config.write_text("".join(f"{flags[i].removeprefix('--')}: {flags[i + 1]}\n" for i in range(0, len(flags), 2)))
    tools = mine.folder / "tools"
    tools.mkdir()
    (tools / "apptainer").write_text(FAKE_APPTAINER)
    (tools / "apptainer").chmod(0o755)
    mine.env["PATH"] = f"{tools}:{mine.env['PATH']}"
    example = Path(__file__).parents[2] / "slurm" / "examples" / f"{name}.sbatch"
    log = mine.folder / "log"
    command = [
        "sbatch",
        "--parsable",
        "--cpus-per-task=1",
        "--mem=1G",
        f"--chdir={mine.folder}",
        f"--output={log}",
        *smaller,
        example,
        config,
    ]
    done = mine.sh(*command, *(["image.sif"] if name == "container" else []))
    assert done.returncode == 0, done.output
    job = done.output.strip()
    if name == "cpu":  # the warning before the end of its time, sent by hand
        assert settled(lambda: (mine.folder / "run" / "metrics.jsonl").exists(), 60), log.read_text()
        assert mine.sh("scancel", "--batch", "--signal=USR1", job).returncode == 0
    state = lambda: mine.sh("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").output.strip()  # noqa: E731
    assert settled(lambda: state() in ("COMPLETED", "FAILED", "CANCELLED"), 120), log.read_text()
    assert state() == "COMPLETED" and (mine.folder / "run" / "finished.json").exists(), log.read_text()
    assert ("going on from" in log.read_text()) == (name == "cpu"), log.read_text()
    assert ("not a real container" in log.read_text()) == (name == "container")
    assert ("ring-allreduce" in log.read_text()) == (name == "multinode")
