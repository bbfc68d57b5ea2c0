"""``ringtune-launch doctor``: what on these hosts would make a run fail or slow it down, found before it starts."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ringtune.launch import commands, environment, preflight, probe
from ringtune.launch.hosts import Host
from ringtune.launch.plan import LaunchPlan
from ringtune.launch.preflight import Report
from ringtune.launch.ranks import assign
from ringtune.launch.run import LAUNCHERS, LaunchRequest, make_plan
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, cache_folder

MOST_SKEW_S = 5.0  # beyond it, time stamps of logs and checkpoints are wrong, and TLS and Kerberos may fail
LEAST_FREE_BYTES = 2 << 30  # a few checkpoints of BERT-base with their optimizer states
SLOW_LINK = 0.3  # of the fastest link's bandwidth
SLOW_FOR_ITS_KIND = 0.15  # of the interface's nominal speed; one TCP stream reaches a quarter of a fast one
MEASURE_LIMIT_S = 300
GOOD, BAD, NOTE = "ok", "BAD", "note"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    where: str  # host, link, or "" for the job
    state: str  # ok, BAD or note
    fact: str
    todo: str = ""


def examine(
    request: LaunchRequest,
    folders: Sequence[Path],
    *,
    as_json: bool,
    quick: bool,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Check every host and the links between them, print the findings and return 1 if one of them is BAD, else 0."""
    findings, measured = look(request, folders, quick=quick, environ=environ)
    if as_json:
        print(json.dumps({"findings": [asdict(each) for each in findings], "measured": measured}, indent=1))
    else:
        print(findings_table(findings, measured, colours=sys.stdout.isatty()))
    return EXIT_FAILED if any(each.state == BAD for each in findings) else EXIT_FINISHED


def look(
    request: LaunchRequest, folders: Sequence[Path], *, quick: bool, environ: Mapping[str, str] = os.environ
) -> tuple[list[Finding], dict[str, Any]]:
    """Return the findings on every host and on the links between them, and the measurements of the links.

    folders: where runs are written; they must be shared by all hosts.
    """
    plan = make_plan(replace(request, command=("true",)), environ)
    shared = [str(folder.absolute()) for folder in folders]
    probed = list(dict.fromkeys([*shared, tempfile.gettempdir(), str(cache_folder())]))
    token = secrets.token_hex(8)
    markers = [Path(folder) / probe.marker(token) for folder in shared]
    try:
        for marker in markers:
            with suppress(OSError):  # the probe of this host reports it
                marker.touch()
        reports = preflight.probe_hosts(plan, probed, token=token)
    finally:
        for marker in markers:
            with suppress(OSError):  # it could not be created
                marker.unlink()
    findings = judge_hosts(reports, probe.facts([]), shared, {host.name: host.slots for host in plan.hosts})
    reached = [report.host for report in reports if report.facts is not None]
    limit = min((report.facts["link_speed"] for report in reports if report.facts is not None), default=0.0)
    measured: dict[str, Any] = {}
    if len(reached) > 1:
        measured, failure = _measure(plan, reached, quick=quick, environ=environ)
        findings += [failure] if failure else judge_links(measured, reached, limit)
    return findings, measured


def judge_hosts(
    reports: Sequence[Report], own: Mapping[str, Any], shared: Sequence[str], slots: Mapping[str, int]
) -> list[Finding]:
    """Return the findings on each host by its probe. **Pure.**

    own: the facts of this machine, with whose software that of the hosts is compared.
    shared: the folders that all hosts must share. slots: ranks per host.
    """
    findings = []
    for report in reports:
        facts = report.facts
        if facts is None:
            findings.append(Finding("reachable", report.host, BAD, report.error, report.todo))
            continue
        findings.append(
            Finding("reachable", report.host, GOOD, f"{facts['num_cpus']} CPUs, {_size(facts['memory'])} of memory")
        )
        different = preflight.differences(own, facts)
        findings.append(
            Finding(
                "software",
                report.host,
                BAD if different else GOOD,
                "; ".join(different) or f"as here: Python {facts['python']}, torch {facts['versions']['torch']}",
                "install the same versions" if different else "",
            )
        )
        findings += [_clock(report), *_gpus(report, slots[report.host])]
        findings += [
            each
            for name, folder in facts["folders"].items()
            for each in _folder(report.host, name, folder, name in shared)
        ]
    return findings


def _clock(report: Report) -> Finding:
    """Compare a host's clock with this one's: it was read between asked_at and answered_at (Cristian 1989)."""
    assert report.facts is not None
    read = float(report.facts["time"])
    ahead, behind = read - report.answered_at, report.asked_at - read
    skew = max(ahead, behind, 0.0)
    if skew > MOST_SKEW_S:
        fact = f"the clock is {skew:.0f} s or more {'ahead of' if ahead > behind else 'behind'} this machine's"
        return Finding("clock", report.host, BAD, fact, "run an NTP client")
    return Finding("clock", report.host, GOOD, f"agrees within {report.answered_at - report.asked_at:.1f} s")


def _gpus(report: Report, slots: int) -> list[Finding]:
    assert report.facts is not None
    gpus = report.facts["gpus"]
    if not gpus:
        return []
    state = GOOD if len(gpus) >= slots else BAD
    return [
        Finding(
            "GPUs",
            report.host,
            state,
            f"{len(gpus)} ({', '.join(sorted(set(gpus)))}) for {slots} rank(s)",
            "" if state == GOOD else "fewer slots, or more GPUs",
        )
    ]


def _folder(host: str, name: str, folder: Mapping[str, Any], must_be_shared: bool) -> list[Finding]:
    if "free" not in folder:
        state = BAD if must_be_shared else NOTE
        return [
            Finding(
                "disk", host, state, f"{name}: {folder['error']}", "create it on every host" if state == BAD else ""
            )
        ]
    findings = []
    if folder["free"] < LEAST_FREE_BYTES or not folder.get("writable", True):
        why = f"{name}: {_size(folder['free'])} free" + (f"; {folder['error']}" if "error" in folder else "")
        findings.append(
            Finding("disk", host, BAD, why, f"free space: {_size(LEAST_FREE_BYTES)} is the least a run should have")
        )
    else:
        findings.append(Finding("disk", host, GOOD, f"{name}: {_size(folder['free'])} free"))
    if must_be_shared:
        shared = folder.get("shared", False)
        findings.append(
            Finding(
                "shared",
                host,
                GOOD if shared else BAD,
                f"{name} is {'the same' if shared else 'another folder'} as on this machine",
                "" if shared else "put runs on a file system that all hosts mount",
            )
        )
    return findings


def _measure(
    plan: LaunchPlan, hosts: Sequence[str], *, quick: bool, environ: Mapping[str, str]
) -> tuple[dict[str, Any], Finding | None]:
    """Run ringtune.launch.links with one rank on each host; return its result, or a finding on why there is none."""
    command = (*commands.module("ringtune.launch.links"), *(["--quick"] if quick else []))
    one_each = replace(plan, slots=tuple(assign([Host(name, 1) for name in hosts], len(hosts))), command=command)
    if plan.launcher != "mpirun":
        return {}, Finding(
            "links", "", NOTE, f"not measured: {plan.launcher} does not start MPI programs", "install openmpi"
        )
    built = LAUNCHERS["mpirun"](one_each)
    # Ranks that wait should not take a core from those that are measured: the hosts of a test share their cores.
    yielding = {"OMPI_MCA_mpi_yield_when_idle": "1"}
    env = {**yielding, **environment.for_launcher(environ), **plan.environment, **built.environment}
    try:
        done = subprocess.run(
            built.argv,
            env=env,
            capture_output=True,
            text=True,
            timeout=MEASURE_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return {}, Finding(
            "links", "", BAD, f"MPI did not end in {MEASURE_LIMIT_S} s", f"try: {shlex.join(built.argv)}"
        )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip(" -")), "no output")
        return {}, Finding(
            "links", "", BAD, f"MPI ended with code {done.returncode}: {last[:160]}", f"try: {shlex.join(built.argv)}"
        )
    answer = next(line for line in done.stdout.splitlines() if line.startswith('{"links"'))  # rank 0's
    return json.loads(answer), None


def judge_links(measured: Mapping[str, Any], hosts: Sequence[str], limit: float) -> list[Finding]:
    """Return the findings on each link and on the ring by the measurements. **Pure.**

    measured: the JSON object of ringtune.launch.links. hosts: by its ranks.
    limit: the nominal speed of the slowest host's interface, bytes/s; 0 if unknown.
    A ring moves 2(N-1)/N of the data through its slowest link (Patarasuk & Yuan 2009): its bandwidth is compared with
    that link's.
    """
    links = measured["links"]
    fastest = max(each["bandwidth"] for each in links)
    slowest = min(links, key=lambda each: each["bandwidth"])
    findings = []
    for each in links:
        name = f"{hosts[each['first']]}-{hosts[each['second']]}"
        slow = each["bandwidth"] < max(SLOW_LINK * fastest, SLOW_FOR_ITS_KIND * limit)
        fact = f"{each['latency'] * 1e6:.0f} us, {each['bandwidth'] / 1e6:.0f} MB/s"
        fact += f" of {limit / 1e6:.0f} nominal" if limit else ""
        fact += f"; the fastest link here has {fastest / 1e6:.0f}" if slow and fastest > each["bandwidth"] else ""
        findings.append(
            Finding("link", name, BAD if slow else GOOD, fact, "check its cable, port and speed" if slow else "")
        )
    size = len(hosts)
    best = max(measured["allreduce"], key=lambda each: each["bytes"] / each["seconds"])
    moved = 2 * (size - 1) / size * best["bytes"] / best["seconds"]
    findings.append(
        Finding(
            "ring",
            "",
            GOOD,
            f"allreduce moves {moved / 1e6:.0f} MB/s per host, {moved / slowest['bandwidth']:.0%} of "
            f"the slowest link, {hosts[slowest['first']]}-{hosts[slowest['second']]}",
        )
    )
    return findings


def findings_table(findings: Sequence[Finding], measured: Mapping[str, Any], *, colours: bool) -> str:
    """Return the findings as a table for people, those that are BAD last, each with what to do. **Pure.**"""
    colour = {GOOD: "\033[32m", BAD: "\033[31;1m", NOTE: "\033[33m"} if colours else {}
    end = "\033[0m" if colours else ""
    width = max((len(each.where) for each in findings), default=0)
    ordered = sorted(findings, key=lambda each: (each.state == BAD, each.state == NOTE))
    lines = [
        f"{colour.get(each.state, '')}{each.state:4}{end} {each.check:9} {each.where:{width}}  {each.fact}"
        + (f"\n{'':{width + 17}}-> {each.todo}" if each.todo else "")
        for each in ordered
    ]
    if measured:
        lines.append("ring-allreduce, fp32:")
        lines += [
            f"  {_size(each['bytes']):>8}  {each['seconds'] * 1e3:9.2f} ms  "
            f"{each['bytes'] / each['seconds'] / 1e6:8.0f} MB/s"
            for each in measured["allreduce"]
        ]
    bad = sum(each.state == BAD for each in findings)
    lines.append(f"{bad} thing(s) would hurt a run" if bad else "nothing found that would hurt a run")
    return "\n".join(lines)


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if num_bytes < 1024 or unit == "TiB":
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    raise AssertionError
