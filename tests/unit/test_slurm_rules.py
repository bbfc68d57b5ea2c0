"""The rules of ringtune-slurm: options, scripts, sweeps, decisions, states. No SLURM needed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ringtune.slurm import cli, options, profile, queue, record, results, script, status, submit, sweep
from ringtune.slurm.decide import Outcome, acts, decide, exclude
from ringtune.slurm.record import History
from ringtune.slurm.script import Job, Limits
from ringtune.train.contract import UsageError

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "a b'c\"d\\e$(touch evil)`touch evil`%j;#\tü"


def job(**changes) -> Job:
    facts = {
        "folder": "/runs/mine",
        "config": "model_name_or_path: bert-base-cased\nseed: 1\n",
        "python": "/venv/bin/python",
        "version": "0.1.0",
        "sbatch": options.complete(
            {"job-name": "mine", "chdir": "/home/me", "nodes": "2", "gpus-per-node": "a100:4", "time": "02:00:00"}
        ),
        **changes,
    }
    return Job(**facts)


JOBS = {
    "plain": job(),
    "sweep": job(
        axes={"learning_rate": ["1e-5", "2e-5"], "seed": ["1", "2", "3"]},
        sbatch=options.complete({"job-name": "s", "array": "0-5%2", "exclusive": None, "no-requeue": None}),
    ),
    "container": job(
        container=profile.Container("apptainer", "/images/torch 2.sif", ("--nv",)),
        examined=False,
        setup=("module load cuda/13", 'export NCCL_DEBUG="WARN"'),
        launcher="mpirun",
        controller="mpi",
        limits=Limits(3, 1),
    ),
    "hostile": job(
        folder=f"/runs/{HOSTILE}".replace("\\", ""),
        config=f"text: {HOSTILE!r}\n",
        sbatch=options.complete({"job-name": HOSTILE, "comment": HOSTILE, "time": "10"}),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_scripts_are_those_of_the_golden_files(name):
    """A changed script is read by a person: update tests/unit/golden by hand, or delete the file to have it written."""
    path = GOLDEN / f"{name}.sbatch"
    if not path.exists():
        path.write_text(script.text(JOBS[name]))
        pytest.fail(f"{path} was written anew: look at it")
    assert script.text(JOBS[name]) == path.read_text()


@settings(deadline=None)  # each example starts a shell, on a machine that may be busy
@given(
    st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=("Cs",)), min_size=1),
    st.text(st.characters(blacklist_characters="\0\r\n\\", blacklist_categories=("Cs",)), min_size=1),
)
def test_whatever_a_folder_and_a_setting_hold_the_shell_hands_on_unchanged(value, folder):
    """The last part of every script, run by a real bash with a command that shows its arguments and input."""
    import yaml

    config = yaml.safe_dump({"train_file": value})
    text = script.text(job(folder=f"/runs/{folder}", config=config, python=sys.executable))
    lines = text.splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith("exec "))
    body = "".join(lines[start:])
    show = "import sys; print(ascii([sys.argv[1:], sys.stdin.read()]))"
    body = body.replace(" -m ringtune.slurm.batch", f" -c {shlex.quote(show)}", 1)
    done = subprocess.run(["bash", "-c", body, "SELF"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    arguments, config_read = eval(done.stdout)
    assert arguments[0] == f"--output-dir=/runs/{folder}"
    assert arguments[-1] == "--script=SELF"
    assert yaml.safe_load(config_read) == {"train_file": value}


@pytest.mark.parametrize("folder", ["/runs/a\\b", "/runs/a\nb"])
def test_a_folder_that_sbatch_cannot_write_a_log_into_is_refused(folder):
    with pytest.raises(UsageError, match="no backslash, no line break"):
        script.text(job(folder=folder))


def test_an_option_of_several_lines_is_refused_by_name():
    with pytest.raises(UsageError, match="--comment: 'a.nb' has more than one line"):
        options.complete({"comment": "a\nb"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gpus-per-node": "4"}, {"ntasks-per-node": "4", "signal": "B:USR1@120", "requeue": None}),
        ({"gpus-per-node": "a100:2", "ntasks": "6"}, {"signal": "B:USR1@120", "requeue": None}),
        ({"time": "2", "no-requeue": None}, {"signal": "B:USR1@30"}),
        ({"time": "1-00"}, {"signal": "B:USR1@120", "requeue": None}),
        ({"signal": "SIGTERM@300"}, {"signal": "B:USR1@300", "requeue": None}),
    ],
    ids=str,
)
def test_what_follows_from_given_options(given, expected):
    assert {
        name: value for name, value in options.complete(given).items() if name not in given or name == "signal"
    } == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-2", 93600),
        ("1-2:30", 95400),
        ("1-2:3:4", 93784),
        ("soon", None),
        ("1-", None),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text, expected):
    assert options.seconds(text) == expected


def test_options_of_a_sites_plugins_pass_and_misspelt_ones_do_not():
    assert options.take_unknown(["--container-image=x.sqsh", "--bell"], ["container-image", "bell"]) == {
        "container-image": "x.sqsh",
        "bell": None,
    }
    with pytest.raises(UsageError, match="--nods: sbatch has no such option; nearest is --nodes"):
        options.take_unknown(["--nods=2"], [])
    with pytest.raises(UsageError, match="--learning_rate"):
        options.take_unknown(["--learning_rate=2"], [])


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringtune.slurm.cli", *words], capture_output=True, text=True, check=False
    )


TRAIN = ("--", "--model_name_or_path", "m", "--train_file", "f.csv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("submit",), "--: there are no arguments of ringtune-train"),
        (("script", "--output", "x", *TRAIN), "--output: ringtune sets it; the log lies in the run directory"),
        (("script", "--array", "1-3", *TRAIN), "--array: 1-3 without a sweep: its tasks would share one run directory"),
        (("script", "--signal", "KILL@9", *TRAIN), "--signal: 'KILL@9' is not understood"),
        (("script", "--sweep", "seed", *TRAIN), "--sweep: 'seed' is not understood"),
        (("script", "--sweep", "sed=1,2", *TRAIN), "--sed: there is no such flag; nearest is seed"),
        (("script", "--sweep", "seed=1,x", *TRAIN), "seed"),
        (("script", "--sweep", "seed=1,1", *TRAIN), "an empty or a repeated value"),
        (("script", "--sweep", "output_dir=a,b", *TRAIN), "output_dir cannot be swept over"),
        (("script", "--sweep", "seed=1..5000", *TRAIN), "5000 runs; at most 1000"),
        (("script", "--profile", "/no/such", *TRAIN), "--profile /no/such: No such file or directory"),
        (("script", *TRAIN, "--lerning_rate", "1"), "nearest is learning_rate"),
        (("script", *TRAIN, "--learning_rate", "-1"), "--learning_rate: -1.0 is not positive"),
        (("script", *TRAIN, "--dry_run"), "--dry_run: a job that trains nothing"),
        (("script", "--max-tries", "0", *TRAIN), "--max-tries: it is too small"),
        (("status", "/no/such"), "/no/such: it is neither a folder nor a job id"),
        (("logs", "99999"), "99999: it is neither a folder nor a job id"),
        (("status", "/tmp"), "/tmp: no job was ever submitted for it"),
        (("status", "--bogus"), "--bogus: ringtune-slurm status takes no such argument"),
        (("table", "/tmp"), "/tmp: it is no sweep"),
        (("submit", *TRAIN), "sbatch: it is not on this machine"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_ends_in_one_line_and_code_2(words, message, monkeypatch, tmp_path):
    monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path))
    if words == ("submit", *TRAIN):
        monkeypatch.setenv("PATH", str(tmp_path))
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr


def test_help_and_script_answer_without_torch_horovod_or_slurm(tmp_path):
    code = "import sys; from ringtune.slurm import cli\ntry: cli.main()\nfinally: print({'torch', 'horovod'} & set(sys.modules))"
    for words in (["--help"], ["submit", "--help"], ["script", *TRAIN]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        assert done.stdout.endswith("set()\n"), done.stdout
    assert not list(tmp_path.iterdir())  # script writes nothing


def test_tab_completion_knows_the_commands_and_sbatchs_options():
    printed = run("completion", "bash").stdout
    assert "gpus-per-node" in printed and "resume" in printed


# Profiles


def test_a_profile_gives_defaults_that_flags_win_over(tmp_path, monkeypatch):
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "sbatch: {partition: gpu, time: 12:00:00, exclusive: true, requeue: false, mem: 8G}\n"
        "setup:\n  - module load cuda\n  - |\n    if true; then\n      echo on\n    fi\n"
        "python: /shared/venv/bin/python\nlauncher: mpirun\ncontainer: {image: x.sif, options: [--nv]}\n"
    )
    found = profile.load(path)
    assert found.sbatch == {"partition": "gpu", "time": "12:00:00", "exclusive": None, "mem": "8G"}
    assert found.setup == ("module load cuda", "if true; then", "  echo on", "fi")
    assert found.container == profile.Container("apptainer", "x.sif", ("--nv",))
    monkeypatch.chdir(tmp_path)
    made = submit.make_job(submit.Request(train=TRAIN[1:], sbatch={"partition": "debug"}, profile=found))
    assert (made.sbatch["partition"], made.sbatch["mem"], made.launcher) == ("debug", "8G", "mpirun")
    assert made.python == "/shared/venv/bin/python"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "it holds list, not entries"),
        ("sbatsh: {}\n", "sbatsh: unknown entry; sbatch, setup"),
        ("sbatch: [a]\n", "sbatch: ['a'] are not options"),
        ("sbatch: {output: my.log}\n", "sbatch: output: ringtune sets it; the log lies in the run directory"),
        ("sbatch: {time: [1]}\n", "sbatch: time: ['1'] is no value"),
        ("launcher: slurm\n", "launcher: 'slurm' is none; srun, mpirun"),
        ("setup: {a: b}\n", "setup: {'a': 'b'} are not lines"),
        ("container: x.sif\n", "container: 'x.sif' is not understood"),
        ("container: {image: x, runtime: docker}\n", "runtime: 'docker' is none"),
        ("a: b: c\n", "mapping values are not allowed here"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said_by_entry(text, message, tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        profile.load(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_the_profile_in_the_readme_is_one():
    import yaml

    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    found = profile.parse(yaml.load(block, Loader=yaml.BaseLoader), "README")
    assert found.sbatch["time"] == "02:00:00" and found.setup == ("module load cuda",)
    assert found.container.options == ("--nv",)


# Sweeps


def test_a_sweep_is_every_combination_in_a_folder_of_its_own():
    axes = sweep.parse(["learning-rate=1e-5,2e-5", "seed=1..3"])
    runs = sweep.expand(axes)
    assert len(runs) == 6 and runs[1] == {"learning_rate": "1e-5", "seed": "2"}
    assert [sweep.folder_name(each) for each in runs][-1] == "learning_rate=2e-5,seed=3"
    assert sweep.folder_name({"train_file": "/a b/c"}) == "train_file=_a_b_c"
    assert sweep.expand({}) == [{}] and sweep.folder_name({}) == ""


def test_two_values_that_would_share_a_folder_are_refused():
    with pytest.raises(UsageError, match="would share the folder"):
        sweep.parse(["train_file=a/b,a_b"])


def test_the_table_has_mean_and_deviation_over_seeds():
    runs = [
        ({"lr": lr, "seed": seed}, {"eval_accuracy": value, "eval_num_rows": 9})
        for lr, seed, value in (("1", "1", 0.8), ("1", "2", 0.9), ("2", "1", 0.5))
    ] + [({"lr": "2", "seed": "2"}, None)]
    rows = results.group(runs)
    assert [(row.settings, row.num_finished, row.num_runs) for row in rows] == [
        ({"lr": "1"}, 2, 2),
        ({"lr": "2"}, 1, 2),
    ]
    mean, deviation = rows[0].scores["accuracy"]
    assert (mean, deviation) == (pytest.approx(0.85), pytest.approx(0.1 / 2**0.5))
    assert results.table(rows).splitlines()[1] == "1   2 of 2    0.8500 ± 0.0707"


# Decisions

STOPPED = Outcome(75, "stopped by SIGUSR1 with a checkpoint")
CRASHED = Outcome(1, "rank 1 of 2 (host n2): exit code 1", "RuntimeError: x")


@pytest.mark.parametrize(
    ("outcome", "idle", "requeues", "expected"),
    [
        (Outcome(0, "finished"), 5, 500, "finished"),
        (STOPPED, 0, 0, "requeue"),
        (STOPPED, 1, 99, "requeue"),
        (STOPPED, 2, 0, "stop"),
        (STOPPED, 0, 100, "stop"),
        (CRASHED, 1, 0, "requeue"),
        (CRASHED, 2, 0, "stop"),
        (Outcome(2, "wrong usage"), 1, 0, "stop"),
        (Outcome(2, "doctor", bad_nodes=("n2",)), 1, 0, "requeue"),
        (Outcome(2, "doctor", bad_nodes=("n1", "n2")), 1, 0, "stop"),
    ],
    ids=str,
)
def test_what_follows_an_end(outcome, idle, requeues, expected):
    assert decide(outcome, idle, requeues, 2, Limits(max_requeues=100, max_tries=2)).what == expected


@pytest.mark.parametrize(
    ("config", "is_signed", "has_checkpoint", "overwrites", "source"),
    [
        ({}, False, False, "false", "null"),
        ({"overwrite_output_dir": True}, False, True, "true", "null"),
        ({"overwrite_output_dir": True}, True, True, "false", "null"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, False, False, "false", "/other/checkpoint-4"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, True, False, "false", "/other/checkpoint-4"),
        ({"resume_from_checkpoint": "/other/checkpoint-4"}, True, True, "false", "null"),
        ({"resume_from_checkpoint": "latest"}, False, True, "false", "latest"),
        ({"resume_from_checkpoint": "latest"}, True, True, "false", "null"),
    ],
)
def test_only_the_first_start_overwrites_or_begins_elsewhere(config, is_signed, has_checkpoint, overwrites, source):
    found = acts(config, is_signed=is_signed, has_checkpoint=has_checkpoint)
    assert found == ["--overwrite_output_dir", overwrites, "--resume_from_checkpoint", source]


def test_a_batch_step_outside_a_job_says_so():
    done = subprocess.run(
        [sys.executable, "-m", "ringtune.slurm.batch", "--output-dir=x", "--script=y"],
        capture_output=True,
        text=True,
        check=False,
        input="a: b",
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2 and "batch step: it runs in no SLURM job" in done.stderr, done.stderr


def test_nodes_to_leave_out_are_added_once():
    assert exclude("n1,n2", ("n2", "n3")) == "n1,n2,n3"
    assert exclude("", ("n2",)) == "n2"


def ended(step: int, started: int, decision: str = "requeue") -> dict:
    return {"event": "ended", "step": step, "started_at_step": started, "decision": decision}


def started(job_id: str = "1") -> dict:
    return {"event": "started", "job_id": job_id, "nodes": ["n1"], "time": 0.0}


def test_counts_begin_with_the_latest_submission_and_pass_over_what_slurm_decided():
    events = [
        {"event": "submitted"},
        started("1"),
        ended(0, 0),
        {"event": "submitted"},
        started("2"),
        ended(4, 0),
        started("2"),
        ended(4, 4),
        started("2"),
        ended(4, 4, "slurm"),
        started("2"),
        ended(4, 4),
    ]
    history = History.of(events)
    assert (history.job_id, history.num_requeues, history.num_idle_tries) == ("2", 3, 2)
    assert History.of(events[:4]).job_id == "" and History.of([]).num_requeues == 0


def test_a_torn_last_event_is_not_read(tmp_path):
    mine = record.Record(tmp_path)
    mine.add(record.SUBMITTED)
    with (mine.folder / record.EVENTS_FILE).open("a") as stream:
        stream.write('{"event": "sta')
    assert [each["event"] for each in mine.events()] == ["submitted"]
    mine.add(record.STARTED)
    assert [each["event"] for each in mine.events()] == ["submitted", "started"]


# What SLURM says


def test_the_columns_of_squeue_are_read_with_every_kind_of_emptiness():
    widths = [width for _, width in queue._COLUMNS]
    cells = (
        ("18_3", "PENDING", "0", "N/A", "1:00", "Resources", ""),
        ("17", "RUNNING", "2", "2026-11-24T09:00:00", "0:30", "None", "n[1-2]"),
    )
    lines = "\n".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    first, second = queue.parse(lines + "\n\n")
    assert first == queue.QueuedJob("18_3", "PENDING", 0, "", "1:00", "Resources", "") and first.is_active
    assert (second.restarts, second.nodes, second.reason) == (2, "n[1-2]", "")


def test_the_lines_of_sacct_are_read():
    """Canned, as sacct(1) describes them: the tests' SLURM has no accounting."""
    found = queue.parse_accounting("17|CANCELLED by 0|2026-11-24T09:00:00|n1\n18_3|NODE_FAIL|Unknown|None assigned\n")
    assert [(each.job_id, each.state, each.nodes) for each in found] == [
        ("17", "CANCELLED", "n1"),
        ("18_3", "NODE_FAIL", ""),
    ]


QUEUED = {"event": "queued", "job_id": "7"}
SENT = {"event": "submitted"}


@pytest.mark.parametrize(
    ("events", "slurm", "finished", "idle_s", "expected"),
    [
        ([SENT, QUEUED], "RUNNING", False, 10, "RUNNING"),
        ([SENT, QUEUED], "RUNNING", False, 601, "STALLED"),
        ([SENT, QUEUED], "PENDING", False, 601, "PENDING"),
        ([SENT, QUEUED], "CANCELLED", False, 0, "CANCELLED"),
        ([SENT, QUEUED], None, True, 0, "COMPLETED"),
        ([SENT, QUEUED, started()], None, False, 0, "LOST"),
        ([SENT, QUEUED, started(), ended(0, 0, "stop")], None, False, 0, "FAILED"),
        ([SENT, QUEUED, {"event": "cancelled"}], None, False, 0, "CANCELLED"),
        ([SENT, {"event": "refused"}], None, False, 0, "NOT SUBMITTED"),
        ([SENT, QUEUED], "no answer", False, 0, "PENDING"),
        ([SENT, QUEUED, started()], "no answer", False, 0, "RUNNING"),
        ([SENT, QUEUED, started()], "no answer", False, 999, "STALLED"),
        ([SENT, QUEUED, started(), ended(4, 0)], "no answer", False, 0, "PENDING"),
        ([], "no answer", False, 0, "NOT SUBMITTED"),
    ],
)
def test_one_word_says_how_a_run_is(events, slurm, finished, idle_s, expected):
    job = queue.QueuedJob("7", slurm) if slurm not in (None, "no answer") else None
    found = status.judge(
        History.of(events),
        job,
        slurm_answers=slurm != "no answer",
        finished=finished,
        idle_s=idle_s,
        stalled_after_s=600,
    )
    assert found == expected


def test_the_parser_takes_every_option_of_its_tables_and_keeps_their_order():
    words = ["submit", "-N2", "--exclusive", "--time=1:00", "-p", "gpu", "--hold"]
    options_found = cli._parser().parse_args(words)
    assert list(options_found.sbatch.items()) == [
        ("nodes", "2"),
        ("exclusive", None),
        ("time", "1:00"),
        ("partition", "gpu"),
        ("hold", None),
    ]
