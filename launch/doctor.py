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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ringtune.launch import allocation, commands, environment, preflight, probe
from ringtune.launch.findings import BAD, NOTE, Finding, findings_table, judge_hosts, judge_links
from ringtune.launch.hosts import Host
from ringtune.launch.plan import LaunchPlan
from ringtune.launch.ranks import assign
from ringtune.launch.run import LAUNCHERS, LaunchRequest, make_plan
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, cache_folder

MEASURE_LIMIT_S = 300


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
        reports = preflight.probe_hosts(plan, probed, token=token, hub=True)
    finally:
        for marker in markers:
            with suppress(OSError):  # it could not be created
                marker.unlink()
    asked_for = plan.source != allocation.THIS_MACHINE  # else nobody has said how many ranks are to be here
    slots = {host.name: host.slots for host in plan.hosts} if asked_for else {}
    findings = judge_hosts(reports, probe.software(), shared, slots)
    reached = [report.host for report in reports if report.facts is not None]
    limit = min((report.facts["link_speed"] for report in reports if report.facts is not None), default=0.0)
    measured: dict[str, Any] = {}
    if len(reached) > 1:
        measured, failure = _measure(plan, reached, quick=quick, environ=environ)
        findings += [failure] if failure else judge_links(measured, reached, limit)
    return findings, measured


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
