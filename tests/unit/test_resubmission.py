"""A run in the queue once more: what sbatch is asked, and what is written down. SLURM is a fake."""

from __future__ import annotations

import json

import pytest
from ringtune.slurm import array_task, batch, cli, index, job_array, queue, requeue, resume, status, submit
from ringtune.slurm import record as records
from ringtune.slurm.record import Record
from ringtune.train.contract import UsageError


class FakeSlurm:
    """Takes every command but a requeue, knows no job but those that are named active, and counts job ids from 1."""

    def __init__(self):
        self.commands, self.active, self.excluded, self.num_jobs = [], {}, "(null)", 0

    def run(self, command, **options):
        self.commands.append([str(word) for word in command])
        if command[0] == "squeue":
            widths = dict(queue._COLUMNS)
            pairs = self.active.items()
            return "".join(f"{job:{widths['JobArrayID']}}{state:{widths['State']}}\n" for job, state in pairs)
        if command[:2] == ["scontrol", "show"]:
            return f"JobId=1 JobName=x\n   ExcNodeList={self.excluded} Requeue=0\n"
        if command[:2] == ["scontrol", "requeue"]:
            raise queue.SlurmError("Requested operation is presently disabled")
        if "--parsable" in command:
            self.num_jobs += 1
            return f"{self.num_jobs}\n"
        return ""

    @property
    def submitted(self):
        """The options of every submission."""
        return [command[2:-1] for command in self.commands if "--parsable" in command]


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    fake = FakeSlurm()
    monkeypatch.setattr(queue, "run", fake.run)
    monkeypatch.setattr(queue, "require", lambda name: None)
    monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path / "cache"))
    return fake


def send(folder, *sweep, **sbatch):
    flags = ["--model_name_or_path=m", "--train_file=x", f"--output_dir={folder}"]
    job = submit.make_job(submit.Submission(train=flags, sweep=sweep, sbatch=sbatch))
    return submit.submit(job, ["submit"], tested=False)


def ask(*words: str) -> int:
    """Return the exit code of ringtune-slurm."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return left.value.code


def test_a_run_whose_script_a_later_sweep_replaced_is_not_resumed_as_another(slurm, tmp_path, capsys):
    folder = tmp_path / "F"
    send(folder, "seed=1..4")
    send(folder, "seed=5..6")
    before = Record(folder / "seed=1").events()
    capsys.readouterr()
    for seed, what in ((1, "task 0 of it is seed=5 now"), (4, "it has no task 3 now")):
        assert ask("resume", folder / f"seed={seed}") == 2
        told = capsys.readouterr().err
        assert f"{folder}/seed={seed}: a later submission replaced {folder}/slurm/job.sbatch: {what}" in told
        assert "submit its sweep again" in told and told.count("\n") == 1
    assert len(slurm.submitted) == 2 and Record(folder / "seed=1").events() == before
    assert ask("resume", folder / "seed=6") == 0 and slurm.submitted[-1] == ["--array=1"]
    send(folder, "seed=1..4")
    assert ask("resume", folder / "seed=4" / "slurm" / "..") == 0 and slurm.submitted[-1] == ["--array=3"]


def test_a_jobs_id_means_its_own_runs_whatever_else_is_in_the_folder(slurm, tmp_path, capsys):
    """Else cancel of the first sweep's job would cancel the second's."""
    folder = tmp_path / "F"
    send(folder, "seed=1..3")
    assert capsys.readouterr().err == ""
    send(folder, "seed=3..5")
    assert "F: a sweep of seed=1, … was submitted there before" in capsys.readouterr().err
    assert ask("resume", folder / "seed=4") == 0
    names = {id: [each.name for each in index.find(id)] for id in ("1", "2", "3", "2_1")}
    assert names == {
        "1": ["seed=3", "seed=1", "seed=2"],
        "2": ["seed=3", "seed=4", "seed=5"],
        "3": ["seed=4"],
        "2_1": ["seed=4"],
    }
    assert [each.name for each in index.find(str(folder))] == names["2"]


def test_runs_of_several_scripts_are_not_resumed_by_one(slurm, tmp_path):
    """A run of a sweep was submitted once more on its own."""
    folder = tmp_path / "F"
    send(folder, "seed=1..3")
    send(folder / "seed=1")
    runs = [folder / f"seed={seed}" for seed in (1, 2, 3)]
    for order in (runs, runs[::-1]):
        with pytest.raises(UsageError, match=r"seed=1: it was submitted by a script of its own, .*/seed=1/slurm/"):
            resume.resume(order, [])
    assert len(slurm.submitted) == 2
    slurm.active = {"2": "RUNNING"}  # of the first alone
    assert resume.resume(runs, []) == "3" and slurm.submitted[-1] == ["--array=1-2"]


def test_a_run_outside_a_sweep_is_resumed_with_the_words_of_the_user(slurm, tmp_path):
    send(tmp_path / "run")
    assert ask("resume", tmp_path / "run", "--time", "08:00:00") == 0
    assert slurm.submitted[-1] == ["--time=08:00:00"]
    script = tmp_path / "run" / "slurm" / "job.sbatch"
    assert json.loads((script.parent / "submission.json").read_text())["script"] == str(script)


# Some tasks of a sweep's array


def states(folder) -> list[str]:
    return [each.state for each in status.look([folder / f"seed={seed}" for seed in range(1, 5)])]


def test_a_sweep_that_is_resumed_runs_no_more_at_once_than_it_did(slurm, tmp_path):
    send(tmp_path / "F", "seed=1..4", array="%2")
    assert ask("resume", tmp_path / "F") == 0 and slurm.submitted[-1] == ["--array=0-3%2"]
    assert ask("resume", tmp_path / "F" / "seed=3", "--mem=1G") == 0
    assert slurm.submitted[-1] == ["--array=2%2", "--mem=1G"]
    assert ask("resume", tmp_path / "F", "--array=%3") == 0 and slurm.submitted[-1] == ["--array=0-3%3"]


def test_runs_that_the_array_leaves_out_are_not_submitted_and_can_be_later(slurm, tmp_path, capsys):
    folder = tmp_path / "F"
    send(folder, "seed=1..4", array="0-1%1")
    assert "--array=0-1%1: 2 of 4 runs; ringtune-slurm resume" in capsys.readouterr().err
    slurm.active = {"1_0": "RUNNING", "1_1": "PENDING"}
    assert states(folder) == ["RUNNING", "PENDING", "NOT SUBMITTED", "NOT SUBMITTED"]
    assert ask("logs", folder / "seed=4") == 2 and "Traceback" not in capsys.readouterr().err
    assert ask("resume", folder / "seed=4") == 0 and slurm.submitted[-1] == ["--array=3%1"]
    slurm.active["2_3"] = "PENDING"
    assert ask("resume", folder, "--array=2-3") == 0 and slurm.submitted[-1] == ["--array=2"]
    told = capsys.readouterr().err
    assert "left alone: tasks 3 of --array" in told and "left alone: 3 run(s) whose jobs wait or run" in told
    assert [Record(folder / f"seed={seed}").events()[-1]["job_id"] for seed in (1, 2, 3, 4)] == [
        "1_0",
        "1_1",
        "3_2",
        "2_3",
    ]


def test_a_dry_run_names_the_runs_that_would_be_submitted(slurm, tmp_path, capsys):
    train = ["--", "--model_name_or_path=m", "--train_file=x", f"--output_dir={tmp_path / 'F'}"]
    assert ask("submit", "--dry-run", "--sweep", "seed=1..4", "--array=1-3:2", *train) == 0
    told = capsys.readouterr().err
    assert [line.rpartition("/")[2] for line in told.splitlines() if "would be" in line] == ["seed=2", "seed=4"]


def test_a_run_that_a_link_names_is_resumed(slurm, tmp_path):
    send(tmp_path / "F", "seed=1..2")
    (tmp_path / "best").symlink_to(tmp_path / "F" / "seed=2")
    assert ask("resume", tmp_path / "best") == 0 and slurm.submitted[-1] == ["--array=1"]


@pytest.mark.parametrize("content", ['{"axes": ', "{}", "[]"])
def test_a_damaged_list_of_runs_hides_no_others(slurm, tmp_path, capsys, content):
    send(tmp_path / "F", "seed=1..2")
    send(tmp_path / "other")
    (tmp_path / "F" / "slurm" / "sweep.json").write_text(content)
    assert ask("status") == 0
    told = capsys.readouterr()
    assert "other" in told.out and f"{tmp_path}/F/slurm/sweep.json: it is no list of runs" in told.err
    assert ask("status", "1") == 0 and "seed=2" in capsys.readouterr().out
    assert ask("resume", tmp_path / "F" / "seed=1") == 2 and "Traceback" not in capsys.readouterr().err


def test_a_list_of_runs_that_a_kill_tore_is_written_anew(slurm, tmp_path, capsys):
    folder = tmp_path / "F"
    send(folder, "seed=1..2")
    (folder / "slurm" / "sweep.json").write_text('{"axes": ')
    assert ask("resume", folder / "seed=1") == 2 and "submit the sweep again" in capsys.readouterr().err
    for command in ("resume", "status"):
        assert ask(command, folder) == 2
        assert f"{folder}/slurm/sweep.json: it is no list of runs" in capsys.readouterr().err
    send(folder, "seed=1..2")
    assert ask("resume", folder) == 0 and slurm.submitted[-1] == ["--array=0-1"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ("0-7", "--array: 0-7 names task 7 of 4 runs; 0-3"),
        ("4", "--array: 4 names task 4 of 4 runs"),
        ("0-99999999999", "names task 99999999999 of 4 runs"),
        ("3-1", "--array: 3-1 counts backwards"),
        ("seed=1", "--array: 'seed=1' is not understood"),
        ("1,,2", "'1,,2' is not understood"),
        ("%", "'%' is not understood"),
        ("0-3:0", "'0-3:0' is not understood"),
    ],
)
def test_an_array_of_other_tasks_is_refused(array, message):
    with pytest.raises(UsageError) as error:
        job_array.parse(array, 4)
    assert message in str(error.value)


def test_submit_and_resume_refuse_an_array_of_other_tasks(slurm, tmp_path, capsys):
    with pytest.raises(UsageError, match="names task 7 of 4 runs"):
        send(tmp_path / "F", "seed=1..4", array="0-7")
    send(tmp_path / "F", "seed=1..4")
    assert ask("resume", tmp_path / "F", "--array=0-7") == 2
    assert "--array: 0-7 names task 7 of 4 runs; 0-3" in capsys.readouterr().err and len(slurm.submitted) == 1


def test_an_array_with_nothing_to_resume_is_refused(slurm, tmp_path, capsys):
    send(tmp_path / "F", "seed=1..4")
    send(tmp_path / "run")
    for target in ("F/seed=2", "run"):
        assert ask("resume", tmp_path / target, "--array=0") == 2
    told = capsys.readouterr().err
    assert "--array: 0: no run of these tasks is left to submit; 1" in told
    assert "--array: 0 of a run that is not of a sweep" in told


@pytest.mark.parametrize(
    ("array", "tasks", "limit"),
    [
        ("0-2,5%2", [0, 1, 2, 5], "%2"),
        ("%4", None, "%4"),
        ("", None, ""),
        ("1-7:3", [1, 4, 7], ""),
        ("[3,1%1]", [1, 3], "%1"),
    ],
)
def test_an_array_is_read_as_sbatch_reads_it(array, tasks, limit):
    assert job_array.parse(array, 8) == (tasks, limit)


def test_a_task_without_a_run_says_so(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    options = batch._parser().parse_args(["--output-dir=/x", "--script=y", "--sweep=seed=1,2"])
    with pytest.raises(UsageError, match="--array: it has a task 2 of 2 runs; 0-1"):
        array_task.settings_of(options)


# Where requeueing is forbidden, a job submits the next one


def goes_on(run, *bad_nodes: str, array_task: str = "") -> None:
    record = Record(run)
    id = records.History.of(record.events()).job_id
    script = record.submission()["script"]
    requeue.run_again(requeue.RunningJob(id, record, script, "{}.log".format, array_task), bad_nodes)


def test_a_next_job_avoids_the_nodes_that_the_user_and_earlier_starts_avoided(slurm, tmp_path):
    send(tmp_path / "run", exclude="n[1,2]")
    slurm.excluded = "n[1,2],n5"
    goes_on(tmp_path / "run", "n7", "n5")
    assert slurm.submitted[-1] == ["--dependency=afterany:1", "--exclude=n[1,2],n5,n7"]
    goes_on(tmp_path / "run")
    assert slurm.submitted[-1] == ["--dependency=afterany:2", "--exclude=n[1,2],n5"]
    slurm.excluded = "(null)"
    goes_on(tmp_path / "run")
    assert slurm.submitted[-1] == ["--dependency=afterany:3"]


def test_a_next_job_has_the_options_of_the_latest_submission_but_those_of_its_start(slurm, tmp_path):
    send(tmp_path / "run", time="10")
    once = ["--begin=now+1hour", "--hold", "--dependency=afterok:77"]
    assert ask("resume", tmp_path / "run", "--time=08:00:00", "--exclusive", *once) == 0
    for number in (2, 3):
        goes_on(tmp_path / "run")
        assert slurm.submitted[-1] == ["--time=08:00:00", "--exclusive", f"--dependency=afterany:{number}"]
    send(tmp_path / "F", "seed=1..3")
    assert ask("resume", tmp_path / "F", "--mem=8G") == 0
    assert slurm.submitted[-1] == ["--array=0-2", "--mem=8G"]
    goes_on(tmp_path / "F" / "seed=2", array_task="1")
    assert slurm.submitted[-1] == ["--mem=8G", "--dependency=afterany:6_1", "--array=1"]


def test_a_next_job_is_neither_held_nor_begun_late_by_its_script(slurm, tmp_path):
    send(tmp_path / "run", begin="now+1hour", hold=None)
    goes_on(tmp_path / "run")
    assert slurm.submitted[-1] == ["--dependency=afterany:1", "--begin=now"]
    assert slurm.commands[-1] == ["scontrol", "release", "2"]
