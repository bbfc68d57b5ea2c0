"""What the doctor makes of facts and measurements, as pure functions."""

from __future__ import annotations

from ringtune.launch import doctor
from ringtune.launch.preflight import Report


def facts(**changes):
    return {
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "num_cpus": 8,
        "memory": 64 << 30,
        "gpus": [],
        "link_speed": 0.0,
        "time": 100.0,
        "folders": {"/runs": {"free": 50 << 30, "shared": True, "writable": True}},
        **changes,
    }


def bad(report: Report):
    found = doctor.judge_hosts([report], facts(), ["/runs"], {"a": 2})
    return [(each.check, each.fact, each.todo) for each in found if each.state == doctor.BAD]


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


def measured(*bandwidths: float, num_hosts: int):
    links = [
        {"first": number, "second": (number + 1) % num_hosts, "latency": 20e-6, "bandwidth": bandwidth}
        for number, bandwidth in enumerate(bandwidths)
    ]
    return {"links": links, "allreduce": [{"bytes": 1_000_000, "seconds": 0.01}]}


def test_a_slow_link_is_named_beside_the_fastest_and_the_nominal_speed():
    found = doctor.judge_links(measured(1e9, 1e8, 1e9, num_hosts=3), ["a", "b", "c"], 0.0)
    assert [(each.where, each.state) for each in found] == [("a-b", "ok"), ("b-c", "BAD"), ("c-a", "ok"), ("", "ok")]
    assert found[1].fact == "20 us, 100 MB/s; the fastest link here has 1000"
    assert "moves 133 MB/s per host, 133% of the slowest link, b-c" in found[3].fact  # 2(N-1)/N of 1 MB in 10 ms
    for bandwidth, state in ((1.2e8, "BAD"), (9e8, "ok")):  # the only link is held against what its kind should give
        only = doctor.judge_links(measured(bandwidth, num_hosts=2), ["a", "b"], 1.25e9)[0]
        assert (only.state, only.fact) == (state, f"20 us, {bandwidth / 1e6:.0f} MB/s of 1250 nominal")


def test_a_terminal_gets_colours_and_what_is_bad_last():
    found = [
        doctor.Finding("link", "a-b", doctor.BAD, "slow", "check its cable"),
        doctor.Finding("disk", "a", doctor.GOOD, "free"),
    ]
    plain = doctor.findings_table(found, {}, colours=False)
    assert "\033" not in plain and plain.index("disk") < plain.index("link") < plain.index("-> check its cable")
    assert plain.endswith("1 thing(s) would hurt a run")
    coloured = doctor.findings_table(found, {}, colours=True)
    assert "\033[31;1mBAD" in coloured and "\033[32mok" in coloured
