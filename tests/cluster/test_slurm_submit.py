"""ringtune-slurm on a real SLURM: what a submission says, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster.desk import LONG, TWO_NODES, start
from cluster.waiting import settled
from conftest import records, script

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


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


@pytest.mark.long
def test_a_node_that_does_not_answer_doctor_is_named_and_left_out(desk):
    """Whatever hangs there, srun waits for it."""
    mine = desk("n1", "n2", "n3")
    python = Path(script("python3"))
    hang = f"mount -t tmpfs tmpfs {python.parent} && printf '#!/bin/sh\nsleep 600\n' > {python} && chmod +x {python}"
    assert mine.slurm.cluster.run("n2", ["sh", "-c", hang]).returncode == 0
    mine.submit(*TWO_NODES, doctor=True, max_steps=4)
    found = mine.finish(limit_s=400)
    assert found["state"] == "COMPLETED", mine.log()
    assert [each["nodes"] for each in mine.events("started")] == [["n1", "n2"], ["n1", "n3"]]
    assert "doctor: n2: no answer in 40 s" in mine.events("ended")[0]["reason"]


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


def test_resume_of_a_sweep_submits_what_is_unfinished_and_leaves_alone_what_is_under_way(desk):
    mine = desk("n1")
    job = mine.submit("--ntasks=1", "--array=%1", "--sweep", "seed=1..2", **{**LONG, "max_steps": 300})
    first, second = (mine.folder / "run" / f"seed={seed}" for seed in (1, 2))
    assert settled(lambda: mine.status(first)["state"] == "RUNNING", 60)
    assert mine("cancel", second).returncode == 0
    done = mine("resume", mine.folder / "run")
    assert done.returncode == 0 and "left alone: 1 run(s) whose jobs wait or run" in done.output, done.output
    assert mine("wait", first, second).returncode == 0
    assert [mine.status(each)["job_id"] for each in (first, second)] == [f"{job}_0", f"{done.output.split()[-1]}_1"]
    assert "finished already" in mine("resume", mine.folder / "run").output


def test_a_run_that_is_submitted_after_another_starts_when_that_has_finished(desk):
    mine = desk("n1", "n2")
    before = mine.submit("--ntasks=1", run="before", max_steps=4)
    mine.submit("--ntasks=1", "--after", mine.folder / "before", "--after", before, max_steps=2)
    shown = mine.sh("scontrol", "show", "job", mine.status()["job_id"]).output
    assert f"Dependency=afterok:{before}" in shown or mine.status(mine.folder / "before")["is_over"], shown
    assert mine.finish()["state"] == "COMPLETED", mine.log()
    assert mine.events("ended", "before")[-1]["time"] < mine.events("started")[0]["time"]
    third = ["--", *mine.here.arguments(mine.folder / "third", max_steps=1)]
    done = mine("submit", "--after", mine.folder / "nothing", *third)
    assert done.returncode == 2 and "neither a folder nor a job id" in done.output, done.output
    done = mine("submit", "--dry-run", "--after", mine.folder / "before", *third)
    assert done.returncode == 0 and "dependency" not in done.output, done.output  # it has finished
    mine.submit("--ntasks=1", "--hold", run="stopped", max_steps=2)
    assert mine("cancel", mine.folder / "stopped").returncode == 0
    assert settled(lambda: mine.status(mine.folder / "stopped")["is_over"], 30)
    done = mine("submit", "--after", mine.folder / "stopped", *third)
    assert done.returncode == 2 and "is over and has not finished" in done.output, done.output


def test_a_job_that_slurm_has_forgotten_is_told_from_its_run_directory(desk):
    mine = desk("n1")
    job = mine.submit("--ntasks=1", max_steps=2)
    assert mine.finish()["state"] == "COMPLETED"
    mine.slurm.cluster.kill_on("login", "slurmctld")
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

    def state() -> str:
        return mine.sh("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").output.strip()

    assert settled(lambda: state() in ("COMPLETED", "FAILED", "CANCELLED"), 120), log.read_text()
    assert state() == "COMPLETED" and (mine.folder / "run" / "finished.json").exists(), log.read_text()
    assert ("going on from" in log.read_text()) == (name == "cpu"), log.read_text()
    assert ("not a real container" in log.read_text()) == (name == "container")
    assert ("ring-allreduce" in log.read_text()) == (name == "multinode")
