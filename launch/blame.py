"""Which rank ended a job, and why: pure rules over what the ranks said and how they ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from ringtune.launch.ranks import RankSlot
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_REQUEUE

TRACEBACK = "Traceback (most recent call last):"
#: What a rank says that only noticed the end of another one.
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
    exit_code: int | None = None  # negative: minus the signal's number; None: never told
    ended_at: float | None = None
    failed_at: float | None = None  # when its first traceback began
    words: list[str] = field(
        default_factory=list
    )  # its traceback, which nobody has seen yet, or its last lines of stderr
    lost: str = ""  # why its keeper is silent
    ordered: bool = False  # it was told to end before it did


@dataclass(frozen=True)
class Verdict:
    """What to tell the user and the shell."""

    exit_code: int
    headline: str  # "" if nothing went wrong
    words: tuple[str, ...] = ()
    num_consequences: int = 0  # other ranks that failed because of it
    last_line: str = ""  # the last that the blamed rank said on stderr
    lost_hosts: tuple[str, ...] = ()  # hosts of which no rank answers any more


def judge(endings: Sequence[Ending], stalled: Sequence[str] = ()) -> Verdict:
    """Return whose fault the end of a job is. **Pure.**

    stalled: Horovod's lines about ranks that the others wait for. The first rank that failed by itself is blamed: before
    all that only noticed it, and before all that were told to end.
    """
    bad = [
        each
        for each in endings
        if not each.ordered and (each.lost or each.exit_code not in (None, EXIT_FINISHED, EXIT_REQUEUE))
    ]
    own = [each for each in bad if not _is_consequence(each)]
    missing = missing_ranks(stalled)
    if missing and not any(each.exit_code and not each.lost for each in own):
        rank, tensor = missing[0]
        host = next((each.slot.host for each in endings if each.slot.rank == rank), "?")
        size = len(endings)
        return Verdict(
            EXIT_FAILED, f"rank {rank} of {size} (host {host}): hung: the other ranks wait for it in {tensor!r}"
        )
    if bad:
        culprit = min(own or bad, key=_first_sign)
        return Verdict(
            _shell_code(culprit),
            _headline(culprit, len(endings)),
            tuple(culprit.words) if culprit.failed_at is not None else (),
            len(bad) - 1,
            next((line.strip() for line in reversed(culprit.words) if line.strip()), ""),
            _lost_hosts(endings),
        )
    codes = {each.exit_code for each in endings if not each.ordered}
    return Verdict(EXIT_REQUEUE if EXIT_REQUEUE in codes else EXIT_FINISHED, "")


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


def _is_consequence(ending: Ending) -> bool:
    return any(sign in line for line in ending.words[-3:] for sign in CONSEQUENCES)


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
