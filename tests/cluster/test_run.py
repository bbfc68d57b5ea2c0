"""``ringtune-launch run`` over several hosts: the ranks it promises, and the end of every job."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from cluster.desk import copied
from cluster.waiting import settled
from conftest import curve, digests, rank_environment, records, script, short_demo

pytestmark = pytest.mark.cluster
PROGRAMS = Path(__file__).parent / "programs"
ENV = rank_environment(os.environ)  # PATH with the environment's commands, and what plain launchers need as root
ROUTES = [("mpirun", "mpi"), ("mpirun", "gloo"), ("horovodrun", "mpi"), ("horovodrun", "gloo")]


def launch(*words: object, program: str = "horovod_sum.py", more: tuple[str, ...] = ()) -> list[str]:
    return [script("ringtune-launch"), "run", *map(str, words), "--", "python", str(PROGRAMS / program), *more]


def nothing_left(cluster) -> bool:
    return settled(lambda: not cluster.command_lines())


@pytest.mark.parametrize(("launcher", "controller"), ROUTES)
def test_ragged_hosts_get_the_ranks_they_were_promised(make_cluster, launcher, controller):
    cluster = make_cluster("a", "b")
    done = cluster.run("a", launch("-H", "a:2,b:1", "--launcher", launcher, "--controller", controller), env=ENV)
    assert done.returncode == 0, done.output
    for rank, local in enumerate(("0 of 2", "1 of 2", "0 of 1")):
        assert f"[{rank}] sum [6.0, 6.0, 6.0] rank {rank} of 3, local rank {local}" in done.output
    assert nothing_left(cluster), cluster.command_lines()


def test_three_hosts_with_odd_names_and_ssh_on_another_port(make_cluster, tmp_path):
    cluster = make_cluster("node_1", "gpu-02.rack-b", "x", ssh_port=2222)
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# slots differ\nnode_1 slots=2\n\ngpu-02.rack-b:1\nx\n")
    words = ("--hostfile", hostfile, "-p", 2222, "--output-dir", tmp_path / "logs")
    done = cluster.run("node_1", launch(*words), env=ENV)
    assert done.returncode == 0, done.output
    assert "rank 3 of 4, local rank 0 of 1" in done.output
    logs = {each.name: each.read_text() for each in (tmp_path / "logs").glob("rank-*")}
    assert sorted(logs) == [f"rank-{rank}.log" for rank in range(4)]
    assert logs["rank-2.log"] == "sum [10.0, 10.0, 10.0] rank 2 of 4, local rank 0 of 1\n"


@pytest.mark.parametrize(
    ("program", "words"),
    [("mpi_sum.py", "sum 6 rank 2 of 3"), ("torch_sum.py", "sum 6.0 rank 2 of 3, local rank 0")],
)
def test_scripts_that_know_nothing_of_horovod_run_unchanged(make_cluster, program, words):
    done = make_cluster("a", "b").run("a", launch("-H", "a:2,b:1", program=program), env=ENV)
    assert done.returncode == 0 and f"[2] {words}" in done.output, done.output


# Every end of a job


@pytest.mark.parametrize("controller", ["mpi", "gloo"])
@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        ("raise", "rank 2 of 3 (host b): exit code 1", 1),
        ("raise_alone", "rank 2 of 3 (host b): exit code 1", 1),
        ("kill", "rank 2 of 3 (host b): killed by SIGKILL", 137),
        ("hang", "rank 2 of 3 (host b): hung: the other ranks wait for it in 'allreduce.first'", 1),
    ],
)
def test_a_rank_that_fails_is_named_with_its_host_and_nothing_is_left(make_cluster, controller, fault, words, code):
    cluster = make_cluster("a", "b")
    limits = ("--stall-check-warning-time-seconds", 2, "--stall-check-shutdown-time-seconds", 4)
    command = launch("-H", "a:2,b:1", "--controller", controller, *limits, program="fault.py", more=(fault,))
    done = cluster.run("a", command, env=ENV)
    print(f"{fault} over {controller}: {done.seconds:.1f} s from start to end")
    assert f"ringtune-launch: {words}" in done.output, done.output
    assert done.returncode == code
    assert done.output.count("RuntimeError: planted failure") == fault.startswith("raise")
    assert done.output.count("Traceback") == fault.startswith("raise"), done.output
    assert nothing_left(cluster), cluster.command_lines()


def start_waiting(cluster, *words: object) -> subprocess.Popen[str]:
    """Start a job whose ranks wait, and return it when all of them are up."""
    process = cluster.popen("a", launch("-H", "a:2,b:1", *words, program="fault.py", more=("wait",)), env=ENV)
    seen = ""
    while not all(f"rank {rank} is up" in seen for rank in range(3)):
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("launcher", "controller"), [("mpirun", "mpi"), ("horovodrun", "gloo")])
def test_a_signal_to_the_launcher_ends_every_rank_on_every_host(make_cluster, number, launcher, controller):
    cluster = make_cluster("a", "b")
    process = start_waiting(cluster, "--launcher", launcher, "--controller", controller)
    cluster.kill_on("a", "ringtune-launch run", number=number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}" in output
    assert nothing_left(cluster), cluster.command_lines()


def test_a_launcher_that_is_killed_leaves_nothing_running(make_cluster):
    cluster = make_cluster("a", "b")
    process = start_waiting(cluster)
    cluster.kill_on("a", "ringtune-launch run")
    process.communicate(timeout=60)
    assert nothing_left(cluster), cluster.command_lines()


def test_a_host_whose_cable_is_cut_ends_the_job_on_both_sides(make_cluster):
    cluster = make_cluster("a", "b")
    process = start_waiting(cluster)
    cluster.cut("b")
    output, _ = process.communicate(timeout=90)
    assert "rank 2 of 3 (host b): silent for 12 s: its host is down or cut off" in output, output
    assert process.returncode == 1

    def ours() -> list[str]:
        return [line for line in cluster.command_lines() if "ringtune" in line or "fault.py" in line]

    assert settled(lambda: not ours()), ours()


def test_a_host_that_loses_power_is_named(make_cluster):
    cluster = make_cluster("a", "b")
    process = start_waiting(cluster)
    cluster.power_off("b")
    output, _ = process.communicate(timeout=90)
    assert "rank 2 of 3 (host b): " in output and process.returncode == 1, output


# Before a job starts


def test_all_hosts_that_cannot_take_ranks_are_named_at_once_before_anything_starts(make_cluster):
    refused = "-o AuthorizedKeysFile=/mnt/stranger.pub"
    cluster = make_cluster("a", "b", "c", "d", sshd_options={"c": refused})
    cluster.kill_on("b")
    cluster.cut("b")
    wrong_version(cluster, "d", "transformers")
    done = cluster.run("a", launch("-H", "a:1,b:1,c:1,d:1,e:1"), env=ENV)
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    for words in ("b: ", "c: ssh refuses the key", "d: transformers 0.0.1, here", "e: the name is not known"):
        assert words in done.output, done.output
    assert done.output.count("\n") == 1 and "sum [" not in done.output


def wrong_version(cluster, host: str, package: str) -> None:
    """Let a host see another version of a package: its metadata is covered by a changed copy."""
    file = next(each for each in metadata.files(package) if each.name == "METADATA")
    path = Path(metadata.distribution(package).locate_file(file))
    changed = path.read_text().replace(f"Version: {metadata.version(package)}", "Version: 0.0.1", 1)
    copy = cluster.shared / "METADATA"
    copy.write_text(changed)
    done = cluster.run(host, ["mount", "--bind", str(copy), str(path)])
    assert done.returncode == 0, done.output


def test_a_program_that_is_not_there_is_named_with_its_host(make_cluster):
    cluster = make_cluster("a", "b")
    done = cluster.run("a", [script("ringtune-launch"), "run", "-H", "a,b", "--", "no-such-program"], env=ENV)
    assert done.returncode == 2
    assert "b: there is no program 'no-such-program' on the PATH" in done.output


# The same result by every way


def same_result(folders: dict[str, Path], mode: str) -> None:
    """Assert that two steps ended alike in all folders."""
    if mode == "exact":
        found = {name: (digests(folder, 2), records(folder, "eval")) for name, folder in folders.items()}
        assert len({repr(each) for each in found.values()}) == 1, found
    else:
        curves = {name: curve(folder) for name, folder in folders.items()}
        first = next(iter(curves.values()))
        assert len(first) == 6
        for name, each in curves.items():
            assert each == pytest.approx(first, rel=1e-5), name


@pytest.mark.parametrize(
    ("what", "mode"),
    [
        ("tiny", "exact"),
        pytest.param("tiny", "fast", marks=pytest.mark.long),
        pytest.param("demo", "exact", marks=pytest.mark.long),
        pytest.param("demo", "fast", marks=pytest.mark.long),
    ],
)
def test_a_fine_tune_has_the_same_result_by_every_launcher_and_over_two_hosts(
    make_cluster, workshop, tmp_path, what, mode
):
    """In exact mode the same bits; in fast mode, by some in the short variant, the same curve to float tolerance."""
    tiny = copied(workshop, tmp_path)

    def command(folder: Path) -> list[str]:
        if what == "demo":
            return short_demo(folder, mode)
        return [script("ringtune-train"), *tiny.arguments(folder, mode=mode, num_shards=2, max_steps=2)]

    cluster = make_cluster("a", "b")
    ours = [script("ringtune-launch"), "run"]
    ways = {
        "horovodrun": [script("horovodrun"), "-np", "2"],
        "mpirun": [script("mpirun"), "-np", "2", "--bind-to", "none"],
        **{
            f"run {launcher} {controller}": [
                *ours,
                "-np",
                "2",
                "--launcher",
                launcher,
                "--controller",
                controller,
                "--",
            ]
            for launcher, controller in ROUTES
        },
        "hosts mpi": [*ours, "-H", "a:1,b:1", "--"],
        "hosts gloo": [*ours, "-H", "a:1,b:1", "--controller", "gloo", "--"],
    }
    if (what, mode) == ("tiny", "fast"):  # one of each launcher and controller, and two hosts
        ways = {name: ways[name] for name in ("mpirun", "run horovodrun gloo", "hosts mpi")}
    folders = {name: tmp_path / name.replace(" ", "-") for name in ways}
    for name, words in ways.items():
        done = cluster.run("a", [*words, *command(folders[name])], env=ENV, limit_s=240)
        assert done.returncode == 0, f"{name}: {done.output}"
    same_result(folders, mode)


# The hosts themselves


def test_hosts_vanish_with_their_maker_however_it_dies(tmp_path):
    command = [
        sys.executable,
        str(Path(__file__).with_name("hosts.py")),
        "a",
        "b",
        "--",
        "sh",
        "-c",
        "echo $$; sleep 600",
    ]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)

    def daemons() -> int:
        names = []
        for each in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended since it was listed
                names.append(each.name())
        return names.count("sshd")

    assert settled(lambda: daemons() >= 2)
    everything = process.children(recursive=True)
    process.kill()
    process.wait()
    assert settled(lambda: not any(each.is_running() for each in everything))
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "port1" not in links and "bridge" not in links
