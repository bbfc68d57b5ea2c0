"""``ringtune-launch doctor`` finds each planted fault and names its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cluster.test_run import wrong_version
from conftest import rank_environment, script
from ringtune.train.contract import cache_folder

pytestmark = pytest.mark.cluster
ENV = rank_environment(os.environ)
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def examine(cluster, *words: object, quick: bool = True) -> tuple[int, list[dict], dict]:
    words = ("--json", *(["--quick"] if quick else []), *map(str, words))
    done = cluster.run("a", [script("ringtune-launch"), "doctor", *words], env=ENV)
    answer = json.loads(done.output[done.output.index("{") :])
    return done.returncode, answer["findings"], answer["measured"]


def bad(findings: list[dict]) -> set[tuple[str, str]]:
    return {(each["check"], each["where"]) for each in findings if each["state"] == "BAD"}


def test_healthy_hosts_pass_and_every_check_was_made(make_cluster, tmp_path):
    code, findings, measured = examine(make_cluster("a", "b", "c"), "-H", "a,b,c", "--folder", tmp_path, quick=False)
    assert (code, bad(findings)) == (0, set()), findings
    checks = {"reachable", "software", "clock", "disk", "shared", "hub", "link", "ring"}
    assert {each["check"] for each in findings} == checks  # no host here reaches the hub
    assert [each["bytes"] for each in measured["allreduce"]] == [
        4096 * 4**power for power in range(9)
    ]  # 4 KiB to 256 MiB


def test_each_planted_fault_is_found_and_no_other(make_cluster, tmp_path):
    ahead = f"-o SetEnv='LD_PRELOAD={FAKETIME} FAKETIME=+60s'"
    cluster = make_cluster("a", "b", "c", "d", "e", "f", sshd_options={"d": ahead})
    wrong_version(cluster, "b", "transformers")
    assert cluster.run("c", ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(cache_folder())]).returncode == 0
    cluster.power_off("f")
    code, findings, _ = examine(cluster, "-H", "a,b,c,d,e,f", "--folder", tmp_path)
    assert code == 1
    assert bad(findings) == {("software", "b"), ("disk", "c"), ("clock", "d"), ("reachable", "f")}, findings
    facts = {(each["check"], each["where"]): each["fact"] for each in findings if each["state"] == "BAD"}
    assert facts["software", "b"] == f"transformers 0.0.1, here {version('transformers')}"
    assert facts["disk", "c"] == f"{cache_folder()}: 64 MiB free"
    assert "the clock is 60 s or more ahead of this machine's" in facts["clock", "d"]


def version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def test_a_folder_that_is_not_shared_is_found_on_every_other_host(make_cluster):
    cluster = make_cluster("a", "b")
    for host in ("a", "b"):
        assert cluster.run(host, ["mkdir", "/tmp/runs"]).returncode == 0
    code, findings, _ = examine(cluster, "-H", "a,b", "--folder", "/tmp/runs")
    assert (code, bad(findings)) == (1, {("shared", "b")}), findings


@pytest.mark.parametrize("hosts", [("a", "b"), ("a", "b", "c")], ids=len)
def test_a_link_slowed_to_a_tenth_is_found_by_name(make_cluster, tmp_path, hosts):
    cluster = make_cluster(*hosts)
    cluster.slow_down("b", "1gbit")  # of the 10 Gbit/s that the kernel says a virtual link has
    code, findings, _ = examine(cluster, "-H", ",".join(hosts), "--folder", tmp_path)
    expected = {("link", "a-b")} | ({("link", "b-c")} if len(hosts) == 3 else set())
    assert (code, bad(findings)) == (1, expected), findings


def test_a_person_gets_a_table_with_what_to_do(make_cluster, tmp_path):
    cluster = make_cluster("a", "b")
    command = [script("ringtune-launch"), "doctor", "-H", "a,b,gone", "--quick", "--folder", str(tmp_path)]
    done = cluster.run("a", command, env=ENV)
    assert done.returncode == 1
    assert "BAD  reachable gone  the name is not known" in done.output and "-> check the spelling" in done.output
    assert "ring-allreduce, fp32:" in done.output and "1 thing(s) would hurt a run" in done.output


def test_one_machine_needs_no_hosts(tmp_path: Path):
    from conftest import run_command

    done = run_command([script("ringtune-launch"), "doctor", "--folder", str(tmp_path)])
    assert done.returncode == 0 and "nothing found that would hurt a run" in done.output, done.output
