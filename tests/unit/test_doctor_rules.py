"""What the doctor makes of facts and measurements, as pure functions."""

from __future__ import annotations

import itertools
import os
import socket

import pytest
from ringtune.launch import findings, limits, probe
from ringtune.launch.preflight import Report
from ringtune.train import hub


def facts(**changes):
    return {
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "num_cpus": 8,
        "memory": 64 << 30,
        "gpus": [],
        "gpu_error": "",
        "usable_memory": 60 << 30,
        "shared_memory": 32 << 30,
        "open_files": 1024,
        "processes": None,
        "temporary": "",
        "socket": "",
        "hub_fault": "",
        "link_speed": 0.0,
        "time": 100.0,
        "folders": {"/runs": {"free": 50 << 30, "shared": True, "writable": True}},
        **changes,
    }


def bad(report: Report, slots=2):
    found = findings.judge_hosts([report], facts(), ["/runs"], {"a": slots} if slots else {})
    return [(each.check, each.fact, each.todo) for each in found if each.state == findings.BAD]


def host(**changes):
    return Report("a", facts(**changes), asked_at=99.9, answered_at=100.1)


def test_a_healthy_host_has_nothing_bad():
    assert bad(host(gpus=["H100", "H100"])) == []


def test_every_fault_of_a_host_is_named_with_what_to_do():
    assert bad(host(gpus=["H100"])) == [("GPUs", "1 (H100) for 2 rank(s)", "fewer slots, or more GPUs")]
    assert bad(host(versions={"torch": "2.12.0"})) == [
        ("software", "torch 2.12.0, here 2.13.0", "install the same versions")
    ]
    assert bad(host(time=40.0)) == [("clock", "the clock is 60 s or more behind this machine's", "run an NTP client")]
    full = {"/runs": {"free": 0, "shared": True, "writable": False, "error": "No space left on device"}}
    assert bad(host(folders=full))[0][:2] == ("disk", "/runs: 0 B free; No space left on device")
    assert bad(host(folders={"/runs": {"error": "No such file"}}))[0] == (
        "disk",
        "/runs: No such file",
        "create it on every host",
    )
    assert bad(host(folders={"/runs": {"free": 50 << 30, "writable": True}}))[0][0] == "shared"
    assert bad(Report("a", None, "it does not answer", "is it up?")) == [
        ("reachable", "it does not answer", "is it up?")
    ]


def test_gpus_that_no_rank_would_use_are_bad_and_those_of_an_unasked_machine_are_not():
    (found,) = bad(host(gpus=["H100"] * 4))
    assert found[:2] == ("idle GPUs", "4 (H100) for 2 rank(s): 2 would be idle")
    assert bad(host(gpus=["H100"] * 4), slots=None) == []


def test_a_driver_that_hangs_is_bad_and_one_without_gpus_is_not():
    hung = "nvidia-smi does not answer in 20 s"
    assert bad(host(gpu_error=hung)) == [("GPUs", hung, "restart the driver, or leave the host out")]
    assert bad(host(gpu_error="nvidia-smi ended with code 6: No devices were found")) == []


@pytest.mark.parametrize(
    ("changes", "check", "fact"),
    [
        ({"usable_memory": 1 << 30}, "memory", "1 GiB free for 2 rank(s)"),
        (
            {"shared_memory": 1 << 16},
            "shm",
            "/dev/shm has 64 KiB free: with less than 17 MiB sums take 3 times as long",
        ),
        ({"open_files": 64}, "limits", "64 open files a process, 256 is the least"),
        ({"processes": 100}, "limits", "100 processes and threads, 64 a rank is the least"),
        ({"temporary": "TMPDIR=/x: Read-only file system"}, "TMPDIR", "TMPDIR=/x: Read-only file system"),
    ],
)
def test_what_a_host_gives_too_little_of_is_named(changes, check, fact):
    ((found_check, found_fact, todo),) = bad(host(**changes))
    assert (found_check, found_fact) == (check, fact) and todo


def test_a_hub_out_of_reach_is_a_note_with_what_to_do():
    found = findings.judge_hosts([host(hub_fault="huggingface.co: no answer in 5 s")], facts(), ["/runs"], {})
    (note,) = [each for each in found if each.check == "hub"]
    assert note.state == findings.NOTE and "HF_HUB_OFFLINE=1" in note.todo


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["A", "B", "C"]),
        ("", []),
        ("2,0", ["C", "A"]),
        ("0,7,1", ["A"]),
        ("GPU-b", ["B"]),
        ("GPU-", []),
        ("-1", []),
        ("MIG-1234", ["part of a GPU (MIG)"]),
    ],
)
def test_cuda_visible_devices_decides_which_gpus_count(chosen, names):
    assert probe.visible("0, GPU-aa, A\n1, GPU-bb, B\n2, GPU-cc, C\n", chosen) == names


def test_a_driver_that_hangs_is_given_up(tmp_path, monkeypatch):
    hanging = tmp_path / "nvidia-smi"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(probe, "GPUS_LIMIT_S", 1)
    assert probe.gpus() == ([], "nvidia-smi does not answer in 1 s")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_tmpdir_in_which_nothing_can_be_made_is_named(name, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    assert limits.temporary_fault().startswith(f"TMPDIR={tmp_path / name}: No")
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert limits.temporary_fault() == ""


def test_a_tmpdir_that_is_too_long_for_a_socket_is_noted(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert limits.socket_fault() == f"TMPDIR={folder}: AF_UNIX path too long"
    found = findings.judge_hosts([host(socket=limits.socket_fault())], facts(), ["/runs"], {})
    assert [each.state for each in found if each.check == "TMPDIR"] == [findings.NOTE]
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert limits.socket_fault() == ""


@pytest.mark.parametrize(
    ("line", "limits_of"),
    [
        ("0::/slurm/job_7/step_0", {"slurm/job_7/memory.max": 1 << 30, "slurm/job_7/step_0/memory.max": "max"}),
        ("4:memory:/slurm/job_7", {"memory/slurm/job_7/memory.limit_in_bytes": 1 << 30}),
    ],
)
def test_the_memory_of_a_job_is_that_of_its_groups(line, limits_of, tmp_path):
    (tmp_path / "own").write_text(f"3:cpu:/elsewhere\n{line}\n")
    for name, limit in limits_of.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{limit}\n")
    assert limits._cgroup_limits(tmp_path / "own", tmp_path) == [1 << 30]


def test_a_hub_is_tried_unless_it_is_not_to_be():
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    assert hub.fault(nobody) == "127.0.0.1: Connection refused"
    assert hub.fault({**nobody, "HF_HUB_OFFLINE": "1"}) == ""
    assert hub.fault({**nobody, "HTTPS_PROXY": "http://proxy:1"}) == ""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert hub.fault({"HF_ENDPOINT": f"http://127.0.0.1:{listening.getsockname()[1]}"}) == ""


def test_the_facts_of_nodes_are_read_from_lines_that_mix():
    """srun passes on whole lines of up to 1,024 bytes, of all nodes as they come."""
    nodes = {name: {**probe.facts(["/tmp", "/"]), "node": name} for name in ("n1", "n2")}
    lines = [probe.as_lines(each).splitlines() for each in nodes.values()]
    assert max(map(len, itertools.chain(*lines))) < 1024
    mixed = "\n".join(["srun: a message", *(line for pair in zip(*lines, strict=True) for line in pair)])
    assert probe.from_lines(mixed) == nodes
    assert probe.from_lines("\n".join([*lines[0], *lines[1][:-1]])) == {"n1": nodes["n1"]}, "n2 died on the way"


def measured(*bandwidths: float, num_hosts: int):
    links = [
        {"first": number, "second": (number + 1) % num_hosts, "latency": 20e-6, "bandwidth": bandwidth}
        for number, bandwidth in enumerate(bandwidths)
    ]
    return {"links": links, "allreduce": [{"bytes": 1_000_000, "seconds": 0.01}]}


def test_a_slow_link_is_named_beside_the_fastest_and_the_nominal_speed():
    found = findings.judge_links(measured(1e9, 1e8, 1e9, num_hosts=3), ["a", "b", "c"], 0.0)
    assert [(each.where, each.state) for each in found] == [("a-b", "ok"), ("b-c", "BAD"), ("c-a", "ok"), ("", "ok")]
    assert found[1].fact == "20 us, 100 MB/s; the fastest link here has 1000"
    assert "moves 133 MB/s per host, 133% of the slowest link, b-c" in found[3].fact  # 2(N-1)/N of 1 MB in 10 ms
    for bandwidth, state in ((1.2e8, "BAD"), (9e8, "ok")):  # the only link is held against what its kind should give
        only = findings.judge_links(measured(bandwidth, num_hosts=2), ["a", "b"], 1.25e9)[0]
        assert (only.state, only.fact) == (state, f"20 us, {bandwidth / 1e6:.0f} MB/s of 1250 nominal")


def test_a_terminal_gets_colours_and_what_is_bad_last():
    found = [
        findings.Finding("link", "a-b", findings.BAD, "slow", "check its cable"),
        findings.Finding("disk", "a", findings.GOOD, "free"),
    ]
    plain = findings.findings_table(found, {}, colours=False)
    assert "\033" not in plain and plain.index("disk") < plain.index("link") < plain.index("-> check its cable")
    assert plain.endswith("1 thing(s) would hurt a run")
    coloured = findings.findings_table(found, {}, colours=True)
    assert "\033[31;1mBAD" in coloured and "\033[32mok" in coloured
