"""The rules of ringtune-slurm: options, scripts, profiles, sweeps. No SLURM needed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ringtune.slurm import options, parser, profile, script
from ringtune.slurm.script import BatchJob, RetryLimits
from ringtune.train.contract import UsageError
from ringtune.train.search import Search

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "a b'c\"d\\e$(touch evil)`touch evil`%j;#\tü"


def job(**changes) -> BatchJob:
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
    return BatchJob(**facts)


JOBS = {
    "plain": job(),
    "sweep": job(
        axes={"learning_rate": ["1e-5", "2e-5"], "seed": ["1", "2", "3"]},
        sbatch=options.complete({"job-name": "s", "array": "0-5%2", "exclusive": None, "no-requeue": None}),
    ),
    "search": job(
        axes={"trial": ["0", "1"]},
        search=Search(("learning_rate=1e-5..1e-3:log", "optim=adamw_torch,lamb"), {}, 2, None),
        sbatch=options.complete({"job-name": "s", "array": "0-1%4"}),
    ),
    "container": job(
        container=profile.Container("apptainer", "/images/torch 2.sif", ("--nv",)),
        examined=False,
        setup=("module load cuda/13", 'export NCCL_DEBUG="WARN"'),
        launcher="mpirun",
        controller="mpi",
        limits=RetryLimits(3, 1),
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
        pytest.fail(f"{path} was written again: review it")
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
    assert options.take_unknown(["--container-image=x.sqsh", "--bell"], ["container-image", "bell"], []) == {
        "container-image": "x.sqsh",
        "bell": None,
    }
    with pytest.raises(UsageError, match="--nods: sbatch has no such option; nearest is --nodes"):
        options.take_unknown(["--nods=2"], [], ["--nodes"])
    with pytest.raises(UsageError, match="--learning_rate"):
        options.take_unknown(["--learning_rate=2"], [], [])


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
        (("script", "--sweep", "seed=1..50000", *TRAIN), "50000 runs; at most 10000"),
        (("script", "--sweep", "learning_rate=1e-5..1e-3:log", *TRAIN), "--search optuna takes ranges"),
        (("script", "--trials", "4", *TRAIN), "--trials: there is no search; with --search optuna"),
        (
            ("script", "--search", "optuna", "--sweep", "sed=1,2,3", "--trials", "2", *TRAIN),
            "--sed: there is no such flag",
        ),
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


def test_a_dry_run_refuses_the_folders_that_a_submission_refuses(tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").touch()
    for folder, message in (
        (taken / "thesis.tex", "it is not a folder"),
        (taken, "it holds thesis.tex and no config.yaml: not a run of ringtune"),
    ):
        done = run("submit", "--dry-run", *TRAIN, "--output_dir", str(folder))
        assert done.returncode == 2 and f"--output_dir {folder}: {message}" in done.stderr, done.stderr
    assert run("submit", "--dry-run", *TRAIN, "--output_dir", str(tmp_path / "new")).returncode == 0
    assert os.listdir(tmp_path) == ["taken"] and os.listdir(taken) == ["thesis.tex"]


def test_help_and_script_answer_without_torch_horovod_or_slurm(tmp_path):
    code = (
        "import sys; from ringtune.slurm import cli\n"
        "try: cli.main()\nfinally: print({'torch', 'horovod'} & set(sys.modules))"
    )
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


def test_the_parser_takes_every_option_of_its_tables_and_keeps_their_order():
    words = ["submit", "-N2", "--exclusive", "--time=1:00", "-p", "gpu", "--hold"]
    options_found = parser.make_parser().parse_args(words)
    assert list(options_found.sbatch.items()) == [
        ("nodes", "2"),
        ("exclusive", None),
        ("time", "1:00"),
        ("partition", "gpu"),
        ("hold", None),
    ]
