"""What the launcher knows of each rank of a running job, and whether the ranks are placed as planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ringtune.launch import control
from ringtune.launch.blame import Ending
from ringtune.launch.plan import LaunchPlan
from ringtune.train.contract import broken_promises


class RankState:
    """What is known of one rank."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.channel: control.Channel | None = None  # to the rank's supervisor; None until it has connected
        self.hello: Mapping[str, Any] = {}  # the supervisor's first message
        self.received_at = 0.0  # when the supervisor's last message came, by time.monotonic()
        self.in_traceback = False  # whether lines of its stderr are held since a traceback began
        self.log: TextIO | None = None

    def __str__(self) -> str:
        return f"{self.ending.slot.rank} (host {self.ending.slot.host})"

    @property
    def has_ended(self) -> bool:
        """Whether the rank has ended or is lost, so that it sends nothing more."""
        return self.ending.exit_code is not None or bool(self.ending.lost)


def mismatches(plan: LaunchPlan, hellos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how the ranks' size and placement differ from the plan, a phrase each. **Pure.**

    hellos: the first message of each rank's supervisor, by rank.
    """
    sizes = [
        f"rank {slot.rank} (host {hello['host']}) sees {hello['hello']['size']} ranks, promised {slot.size}"
        for slot, hello in zip(plan.slots, hellos, strict=True)
        if hello["hello"]["size"] != slot.size
    ]
    found = [(str(each["host"]), each["hello"]["local_rank"], each["hello"]["local_size"]) for each in hellos]
    return sizes + broken_promises([(slot.host, slot.local_rank, slot.local_size) for slot in plan.slots], found)
