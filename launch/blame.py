"""Which rank ended a job, and why: pure rules over the ranks' output and how they ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from ringtune.launch.ranks import RankSlot
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_PRUNED, EXIT_REQUEUE, ORDERLY

TRACEBACK = "Traceback (most recent call last):"
#: What the stderr of a rank contains that failed only because another one had ended.
CONSEQUENCES = (
    "HorovodInternalError",
    "Horovod has been shut down",
    "Connection reset by peer",
    "Connection closed by peer",
)
_STALLED = re.compile(r"^(\d+)!?: \[(.*?)\]?$")  # "!": beyond the limit for a shutdown


@dataclass
class Ending:
    """How one rank ended; times are the launcher's, in seconds."""

    slot: RankSlot
    exit_code: int | None = None  # negative: minus the signal's number; None: unknown
    ended_at: float | None = None
    failed_at: float | None = None  # when the traceback began that may end it
    # That traceback, which has not been printed yet, or without one its last lines of stderr.
    stderr_lines: list[str] = field(default_factory=list)
    lost: str = ""  # why its supervisor sends nothing more
    was_terminated: bool = False  # the launcher had asked it to end before it did


@dataclass(frozen=True)
class Verdict:
    """How a job ended: what the user and the shell get; also the fields of VERDICT_FILE."""

    exit_code: int
    headline: str  # "" if nothing went wrong
    words: tuple[str, ...] = ()  # the traceback of the blamed rank
    num_consequences: int = 0  # other ranks that failed because of it
    last_line: str = ""  # the last line of the blamed rank on stderr
    lost_hosts: tuple[str, ...] = ()  # hosts all of whose ranks are lost


def judge(endings: Sequence[Ending], stalled: Sequence[str] = ()) -> Verdict:
    """Return which rank ended a job, and how. **Pure.**

    stalled: Horovod's lines about ranks that the others wait for.
    The first rank that failed by itself is blamed, rather than one that failed because of it or was asked to end.
    """
    bad = [
        each for each in endings if not each.was_terminated and (each.lost or each.exit_code not in (None, *ORDERLY))
    ]
    own = [each for each in bad if not is_consequence(each)]
    missing = missing_ranks(stalled)
    if missing and not any(each.exit_code and not each.lost for each in own):
        rank, tensor = missing[0]
        host = next((each.slot.host for each in endings if each.slot.rank == rank), "?")
        size = len(endings)
        return Verdict(
            EXIT_FAILED, f"rank {rank} of {size} (host {host}): hung: the other ranks wait for it in {tensor!r}"
        )
    if bad:
        blamed = min(own or bad, key=_first_sign)
        return Verdict(
            _shell_code(blamed),
            _headline(blamed, len(endings)),
            tuple(blamed.stderr_lines) if blamed.failed_at is not None else (),
            len(bad) - 1,
            next((line.strip() for line in reversed(blamed.stderr_lines) if line.strip()), ""),
            _lost_hosts(endings),
        )
    codes = {each.exit_code for each in endings if not each.was_terminated}
    return Verdict(next((code for code in (EXIT_REQUEUE, EXIT_PRUNED) if code in codes), EXIT_FINISHED), "")


def _lost_hosts(endings: Sequence[Ending]) -> tuple[str, ...]:
    hosts = dict.fromkeys(each.slot.host for each in endings)
    return tuple(host for host in hosts if all(each.lost for each in endings if each.slot.host == host))


def missing_ranks(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Return (rank, first tensor) of the latest report of Horovod's stall inspector. **Pure.**"""
    found: list[tuple[int, str]] = []
    for line in lines:
        if line.strip() == "Missing ranks:":
            found = []
        elif match := _STALLED.match(line.strip()):
            found.append((int(match[1]), match[2].split(",")[0].split(" ...")[0]))
    return found


def is_consequence(ending: Ending) -> bool:
    """Return whether a rank's last lines say that it failed only because another one had ended. **Pure.**"""
    return any(sign in line for line in ending.stderr_lines[-3:] for sign in CONSEQUENCES)


def _first_sign(ending: Ending) -> float:
    times = [each for each in (ending.failed_at, ending.ended_at) if each is not None]
    return min(times) if times else float("inf")


def _headline(ending: Ending, size: int) -> str:
    who = f"rank {ending.slot.rank} of {size} (host {ending.slot.host})"
    if ending.lost:
        return f"{who}: {ending.lost}"
    assert ending.exit_code is not None
    if ending.exit_code < 0:
        return f"{who}: killed by {signal_name(-ending.exit_code)}"
    return f"{who}: exit code {ending.exit_code}"


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL. **Pure.**"""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _shell_code(ending: Ending) -> int:
    """Return the exit code as a shell gives it: 128 + the signal's number for a killed process."""
    if ending.exit_code is None or ending.lost:
        return EXIT_FAILED
    return ending.exit_code if ending.exit_code > 0 else 128 - ending.exit_code
