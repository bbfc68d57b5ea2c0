"""sbatch's own options: their names, which take a value, and the directives made of them (sbatch(1) of SLURM 22.05)."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterable, Sequence

from ringtune.slurm import gpus
from ringtune.slurm.gpus import Options
from ringtune.train.contract import UsageError, nearest

WITH_VALUE = {
    "account": "A",
    "acctg-freq": "",
    "array": "a",
    "batch": "",
    "bb": "",
    "bbf": "",
    "begin": "b",
    "chdir": "D",
    "cluster-constraint": "",
    "clusters": "M",
    "comment": "",
    "constraint": "C",
    "container": "",
    "core-spec": "S",
    "cores-per-socket": "",
    "cpu-freq": "",
    "cpus-per-gpu": "",
    "cpus-per-task": "c",
    "deadline": "",
    "delay-boot": "",
    "dependency": "d",
    "distribution": "m",
    "exclude": "x",
    "export": "",
    "extra-node-info": "B",
    "gid": "",
    "gpu-bind": "",
    "gpu-freq": "",
    "gpus": "G",
    "gpus-per-node": "",
    "gpus-per-socket": "",
    "gpus-per-task": "",
    "gres": "",
    "gres-flags": "",
    "hint": "",
    "job-name": "J",
    "kill-on-invalid-dep": "",
    "licenses": "L",
    "mail-type": "",
    "mail-user": "",
    "mcs-label": "",
    "mem": "",
    "mem-bind": "",
    "mem-per-cpu": "",
    "mem-per-gpu": "",
    "mincpus": "",
    "network": "",
    "nodefile": "F",
    "nodelist": "w",
    "nodes": "N",
    "ntasks": "n",
    "ntasks-per-core": "",
    "ntasks-per-gpu": "",
    "ntasks-per-node": "",
    "ntasks-per-socket": "",
    "partition": "p",
    "power": "",
    "prefer": "",
    "priority": "",
    "qos": "q",
    "reservation": "",
    "signal": "",
    "sockets-per-node": "",
    "switches": "",
    "thread-spec": "",
    "threads-per-core": "",
    "time": "t",
    "time-min": "",
    "tmp": "",
    "tres-bind": "",
    "tres-per-task": "",
    "uid": "",
    "wait-all-nodes": "",
    "wckey": "",
}
MAY_HAVE_VALUE = ("exclusive", "get-user-env", "nice", "no-kill", "propagate")
WITHOUT_VALUE = (
    "contiguous",
    "hold",
    "no-requeue",
    "overcommit",
    "oversubscribe",
    "reboot",
    "requeue",
    "spread-job",
    "use-min-nodes",
)
#: Options that would break what ringtune promises, and what to do instead.
OURS = {
    "output": "the log lies in the run directory; see ringtune-slurm logs",
    "error": "the log lies in the run directory; see ringtune-slurm logs",
    "open-mode": "a requeued job appends to its log",
    "input": "the ranks read no standard input",
    "wrap": "the script is ringtune's",
    "wait": "use ringtune-slurm wait",
    "parsable": "use ringtune-slurm submit and its last line",
    "test-only": "use --dry-run",
}
DEFAULT_WARNING_S = 120
_SIGNAL = re.compile(r"(?:[RB]+:)?(?:SIG)?(USR1|TERM|10|15)@(\d+)")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./*&|()\[\]-]+")  # sbatch reads these as they are


class _Collect(argparse.Action):
    """Put an option into one dictionary, by its long name and in the order of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        given = getattr(namespace, "sbatch", None) or {}
        given[self.dest] = None if values in ([], None) else str(values)
        namespace.sbatch = given


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add sbatch's options to a parser; they are collected in ``sbatch``."""
    group = parser.add_argument_group("SLURM", "sbatch's own options, under sbatch's own names")
    for name, short in sorted(WITH_VALUE.items()):
        flags = [f"--{name}", *([f"-{short}"] if short else [])]
        group.add_argument(*flags, action=_Collect, dest=name, metavar="…", default=argparse.SUPPRESS)
    for name in MAY_HAVE_VALUE:
        group.add_argument(f"--{name}", action=_Collect, dest=name, nargs="?", metavar="…", default=argparse.SUPPRESS)
    for name in WITHOUT_VALUE:
        group.add_argument(f"--{name}", action=_Collect, dest=name, nargs=0, default=argparse.SUPPRESS)


def refuse_ours(name: str, where: str) -> None:
    """Raise UsageError for an option that is ringtune's to set. **Pure.**"""
    if name in OURS:
        raise UsageError(where, "ringtune sets it", legal=OURS[name])


def take_unknown(words: Sequence[str], sites_own: Sequence[str], known: Iterable[str]) -> dict[str, str | None]:
    """Return options that the parser did not know but this site's sbatch does (of its plug-ins). **Pure.**

    sites_own: long names that ``sbatch --help`` lists. known: flags of the parser. Raises UsageError for any other,
    naming the nearest.
    """
    result: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise UsageError(
                word,
                "it belongs to no option",
                legal="sbatch's options before --, ringtune-train's after it",
                todo="see --help; write --name=value",
            )
        refuse_ours(name, f"--{name}")
        if name not in sites_own:
            raise UsageError(
                f"--{name}",
                "sbatch has no such option",
                legal=nearest(f"--{name}", [*known, *(f"--{each}" for each in sites_own)]),
                todo="flags of ringtune-train come after --",
            )
        result[name] = value if equals else None
    return result


def of_this_site() -> list[str]:
    """Return the long options that this machine's sbatch lists, none where there is no working sbatch."""
    try:
        done = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"--([a-z][a-z0-9-]+)", done.stdout)


def complete(given: Options) -> dict[str, str | None]:
    """Return the options with what follows from them and what ringtune needs. **Pure.** Raises UsageError.

    One task per GPU, however they are asked for; a warning by SIGUSR1 to the batch step before the time is up;
    requeueing on.
    """
    result = {**given, **gpus.tasks(given)}
    result.setdefault("signal", f"B:USR1@{warning_s(result.get('time'))}")
    match = _SIGNAL.fullmatch(result["signal"] or "")
    if match is None:
        raise UsageError(
            "--signal", f"{result['signal']!r} is not understood", legal="USR1@SECONDS", todo="leave it out"
        )
    result["signal"] = f"B:USR1@{match[2]}"  # to the batch step, which passes it on to the ranks
    if "no-requeue" not in result:
        result.setdefault("requeue", None)
    for name, value in result.items():
        if value is not None and ("\n" in value or "\0" in value):
            raise UsageError(f"--{name}", f"{value!r} has more than one line", legal="one line")
    return result


def warning_s(time: str | None) -> int:
    """Return how many seconds before its time limit a job is warned: 120, a quarter of a short time. **Pure.**"""
    limit = seconds(time) if time else None
    return DEFAULT_WARNING_S if limit is None else max(1, min(DEFAULT_WARNING_S, limit // 4))


def seconds(time: str) -> int | None:
    """Return a time of sbatch's in seconds (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S), None for any other. **Pure.**"""
    days, dash, rest = time.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, secs = [*numbers, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + secs
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def directive(name: str, value: str | None) -> str:
    """Return the ``#SBATCH`` line of an option. **Pure.** sbatch knows quotes and backslashes, and no variables."""
    if value is None:
        return f"#SBATCH --{name}"
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{name}={value}"
