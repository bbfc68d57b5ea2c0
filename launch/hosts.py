"""Hosts and their slots, as users and batch systems write them: ``-H a:2,b:2``, or a hostfile.

Hostfiles are those of Open MPI and Horovod (``a slots=2``, ``a:2``), of PBS, Torque, OAR and LSF (a line for each
slot), and of Grid Engine (``a 2 all.q@a <NULL>``: sge_pe(5), $pe_hostfile).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ringtune.train.contract import UsageError

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_LEGAL = "host, host:SLOTS, [IPv6]:SLOTS, or a range such as n[01-03]:SLOTS"
MOST_HOSTS_OF_A_RANGE = 100_000


@dataclass(frozen=True)
class Host:
    """One machine and the number of ranks it takes."""

    name: str  # as ssh and mpirun know it: a name or an address, an IPv6 one without brackets
    slots: int

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.slots}"


def parse_hosts(text: str, where: str = "-H") -> list[Host]:
    """Return the hosts of ``a:2,b:2``; a host without slots has one. **Pure.**

    Raises UsageError, also for a host named twice: two entries would give one machine two ranks with local rank 0.
    """
    found = [host for item in split_outside_brackets(text) for host in _entry(item.strip(), where)]
    return _distinct((host, where) for host in found)


def parse_hostfile(text: str, where: str) -> list[Host]:
    """Return the hosts of a hostfile, in the order in which they come first. **Pure.**

    One host a line: ``host``, ``host:4``, ``host slots=4 max_slots=8`` or ``host 4 queue@host``; ``#`` begins a
    comment. The slots of lines that name the same host add up. Raises UsageError naming file and line.
    """
    found: dict[str, Host] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.sub(r"\s*=\s*", "=", line.partition("#")[0]).split()
        if words:
            here = f"{where}:{number}"
            for host in _with_options(_entry(words[0], here), words[1:], here):
                before = found[host.name].slots if host.name in found else 0
                found[host.name] = Host(host.name, before + host.slots)
    if not found:
        raise UsageError(where, "it names no host", legal="one host a line, such as: node1 slots=4")
    return _of_different_machines(list(found.values()), where)


def read_hostfile(path: Path) -> list[Host]:
    """Return the hosts of a file. Raises UsageError if it cannot be read."""
    try:
        return parse_hostfile(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise UsageError(f"--hostfile {path}", str(error.strerror), legal="a file of hosts") from None
    except UnicodeDecodeError:
        raise UsageError(f"--hostfile {path}", "it is not text", legal="a file of hosts in UTF-8") from None


def expand(text: str, where: str) -> list[str]:
    """Return the names that ``n[01-03,7]x[1-2]`` stands for, leading zeros kept. **Pure.**

    The notation is that of SLURM and pdsh. Raises UsageError.
    """
    opening = text.find("[")
    if opening < 0:
        return [text]
    closing = text.find("]", opening)
    if closing < 0:
        raise UsageError(where, f"{text!r} has a bracket that does not close", legal=_LEGAL)
    numbers: list[str] = []
    for part in text[opening + 1 : closing].split(","):
        match = _RANGE.fullmatch(part.strip())
        if not match:
            raise UsageError(where, f"{part!r} in {text!r} is no range", legal="numbers such as 01-03 or 7")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first) or int(last) - int(first) >= MOST_HOSTS_OF_A_RANGE:
            raise UsageError(where, f"the range {part!r} in {text!r} counts backwards or too far", legal="low-high")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    rests = expand(text[closing + 1 :], where)
    if len(numbers) * len(rests) > MOST_HOSTS_OF_A_RANGE:
        raise UsageError(
            where,
            f"{text!r} stands for {len(numbers) * len(rests)} hosts",
            legal=f"at most {MOST_HOSTS_OF_A_RANGE}",
            todo="name fewer",
        )
    return [text[:opening] + number + rest for number in numbers for rest in rests]


def split_outside_brackets(text: str) -> list[str]:
    """Return the parts between commas, but not those inside brackets. **Pure.**"""
    return re.split(r",(?![^\[]*\])", text)


def _entry(item: str, where: str) -> list[Host]:
    """Return the hosts that one item, such as ``n[1-2]:4``, stands for."""
    if _is_ipv6(item):
        return [Host(item, 1)]
    bracketed = re.fullmatch(r"\[([^\]]*:[^\]]*)\](?::(.*))?", item)
    if bracketed:
        name, slots = bracketed[1], bracketed[2]
        if not _is_ipv6(name):
            raise UsageError(where, f"{name!r} is no IPv6 address", legal=_LEGAL)
        return [Host(name, _count(slots, item, where))]
    name, colon, slots = item.partition(":")
    names = expand(name, where)
    for each in names:
        if not _NAME.fullmatch(each):
            todo = "put the user name into ssh's configuration" if "@" in each else ""
            raise UsageError(where, f"{each!r} is no host name", legal=_LEGAL, todo=todo)
    return [Host(each, _count(slots if colon else None, item, where)) for each in names]


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _count(text: str | None, item: str, where: str) -> int:
    if text is None:
        return 1
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise UsageError(where, f"{text!r} in {item!r} is no number of slots", legal="a whole number from 1")
    return int(text)


def _with_options(hosts: list[Host], words: list[str], where: str) -> list[Host]:
    slots = most = None
    if words and words[0].isdecimal():  # Grid Engine's: slots, and perhaps a queue and processors
        slots, queue, words = _count(words[0], words[0], where), words[1:3], words[3:]
        if queue and "@" not in queue[0]:
            words = [*queue, *words]
    for word in words:
        name, _, value = word.partition("=")
        if name == "slots":
            slots = _count(value, word, where)
        elif name in ("max_slots", "max-slots"):
            most = _count(value, word, where)
        else:
            raise UsageError(
                where, f"{word!r} is not understood", legal="slots=N and max_slots=N, or: host N queue@host"
            )
    result = [Host(host.name, slots or host.slots) for host in hosts]
    for host in result:
        if most is not None and host.slots > most:
            raise UsageError(where, f"slots={host.slots} is more than max_slots={most}", legal="slots <= max_slots")
    return result


def _distinct(found: Iterable[tuple[Host, str]]) -> list[Host]:
    result: dict[str, Host] = {}
    for host, where in found:
        if host.name in result:
            raise UsageError(
                where,
                f"the host {host.name} is named twice",
                legal="each host once, with all its slots",
                todo=f"write {Host(host.name, host.slots + result[host.name].slots)}",
            )
        result[host.name] = host
    return _of_different_machines(list(result.values()), where if result else "")


def _of_different_machines(hosts: list[Host], where: str) -> list[Host]:
    """Return the hosts. Raises UsageError for a name that stands beside its own long form, as ``a`` and ``a.example``.

    They would be one machine, whose ranks would be counted from 0 twice.
    """
    names = {host.name for host in hosts}
    for host in hosts:
        short = host.name.partition(".")[0]
        if short != host.name and short in names and not short.isdecimal():
            raise UsageError(
                where,
                f"{short} and {host.name} look like two names of one machine",
                legal="each host once, with all its slots",
                todo="write one of them, or the addresses of both if they are two",
            )
    return hosts
