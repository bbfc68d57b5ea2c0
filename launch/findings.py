"""What the facts of hosts and the measurements of links mean for a run. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringtune.launch import preflight
from ringtune.launch.preflight import TEMPORARY_TODO, Report
from ringtune.launch.probe import HUNG

MOST_SKEW_S = 5.0  # beyond it, time stamps of logs and checkpoints are wrong, and TLS and Kerberos may fail
LEAST_FREE_BYTES = 2 << 30  # a few checkpoints of BERT-base with their optimizer states
SLOW_LINK = 0.3  # of the fastest link's bandwidth
SLOW_FOR_ITS_KIND = 0.15  # of the interface's nominal speed; one TCP stream reaches a quarter of a fast one
LEAST_MEMORY = 1 << 30  # bytes of a rank: a small model with its optimizer, and Python with torch
#: Bytes free. With less, Open MPI 5 does without shared memory and says nothing: two ranks sum 100 MB in 37 ms instead
#: of 11, four in 120 to 220 instead of 35.
LEAST_SHARED_MEMORY = 17 << 20
LEAST_OPEN_FILES = 256
LEAST_PROCESSES = 64  # of a rank: threads count
GOOD, BAD, NOTE = "ok", "BAD", "note"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    where: str  # host, link, or "" for the job
    state: str  # ok, BAD or note
    fact: str
    todo: str = ""


def judge_hosts(
    reports: Sequence[Report], own: Mapping[str, Any], shared: Sequence[str], slots: Mapping[str, int]
) -> list[Finding]:
    """Return the findings on each host by its probe. **Pure.**

    own: the facts of this machine, with whose software that of the hosts is compared.
    shared: the folders that all hosts must share. slots: ranks per host; a host without an entry may get any number.
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
        num_ranks = slots.get(report.host)
        findings += [
            _clock(report),
            *_gpus(facts, report.host, num_ranks),
            *_limits(facts, report.host, num_ranks or 1),
        ]
        findings += _hub(facts, report.host)
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


def _gpus(facts: Mapping[str, Any], host: str, num_ranks: int | None) -> list[Finding]:
    gpus, error = facts["gpus"], facts["gpu_error"]
    if error:
        if error.startswith(HUNG):
            return [Finding("GPUs", host, BAD, error, "restart the driver, or leave the host out")]
        return [Finding("GPUs", host, NOTE, error)]
    if not gpus:
        return []
    kinds = ", ".join(sorted(set(gpus)))
    if num_ranks is None:
        return [Finding("GPUs", host, GOOD, f"{len(gpus)} ({kinds})")]
    fact = f"{len(gpus)} ({kinds}) for {num_ranks} rank(s)"
    if len(gpus) < num_ranks:
        return [Finding("GPUs", host, BAD, fact, "fewer slots, or more GPUs")]
    if len(gpus) > num_ranks:
        fact += f": {len(gpus) - num_ranks} would be idle"
        return [Finding("idle GPUs", host, BAD, fact, "a rank for each GPU: more slots, or more tasks")]
    return [Finding("GPUs", host, GOOD, fact)]


def _limits(facts: Mapping[str, Any], host: str, num_ranks: int) -> list[Finding]:
    """Return what a host gives its ranks too little of."""
    memory, shared, files, processes = (
        facts[name] for name in ("usable_memory", "shared_memory", "open_files", "processes")
    )
    found = []
    if memory < LEAST_MEMORY * num_ranks:
        todo = "fewer ranks, or more memory: sbatch --mem"
        found.append(Finding("memory", host, BAD, f"{_size(memory)} free for {num_ranks} rank(s)", todo))
    if shared < LEAST_SHARED_MEMORY and num_ranks > 1:
        fact = (
            f"/dev/shm has {_size(shared)} free: with less than {_size(LEAST_SHARED_MEMORY)} sums take 3 times as long"
        )
        found.append(Finding("shm", host, BAD, fact, "a larger /dev/shm: of a container, --shm-size"))
    if files is not None and files < LEAST_OPEN_FILES:
        fact = f"{files} open files a process, {LEAST_OPEN_FILES} is the least"
        found.append(Finding("limits", host, BAD, fact, "ulimit -n"))
    if processes is not None and processes < LEAST_PROCESSES * num_ranks:
        fact = f"{processes} processes and threads, {LEAST_PROCESSES} a rank is the least"
        found.append(Finding("limits", host, BAD, fact, "ulimit -u"))
    if facts["temporary"]:
        found.append(Finding("TMPDIR", host, BAD, facts["temporary"], TEMPORARY_TODO))
    if facts["socket"]:
        todo = "ringtune does without; programs that make sockets there need a shorter path"
        found.append(Finding("TMPDIR", host, NOTE, facts["socket"], todo))
    return found


def _hub(facts: Mapping[str, Any], host: str) -> list[Finding]:
    if not facts["hub_fault"]:
        return []
    todo = "with models and data of folders set HF_HUB_OFFLINE=1, or every name is waited for"
    return [Finding("hub", host, NOTE, facts["hub_fault"], todo)]


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
