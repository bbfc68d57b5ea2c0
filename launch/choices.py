"""The ways in which the steps of one run can be computed, and the order in which ringtune-launch tune tries them.

The rows of each step are the same in all of them. Pure rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ringtune.launch.hosts import Host

DEFAULT_BATCH = 32  # rows per step where a run does not say
DEFAULT_EXACT_SHARDS = 8  # parts of a step in exact mode, likewise
FUSION_MB = (32, 8)  # beside Horovod's own 128
CYCLE_MS = (5.0, 0.5)  # beside Horovod's own 1
ACCUMULATION = (2, 4)  # beside 1


@dataclass(frozen=True)
class Choice:
    """One way to compute a step; None and False leave a setting as it is."""

    ranks: int  # per host, where it has so many slots
    threads: int  # per rank
    accumulation: int | None  # shards of a rank and step; None: the run has a number of shards of its own
    fp16_allreduce: bool = False
    fusion_mb: int | None = None
    cycle_ms: float | None = None

    def __str__(self) -> str:
        """Return the choice in words."""
        words = [f"{self.ranks} rank{'s' * (self.ranks > 1)} x {self.threads} thread{'s' * (self.threads > 1)}"]
        words += [f"{self.accumulation} shards a rank"] if (self.accumulation or 1) > 1 else []
        words += ["fp16 on the wire"] if self.fp16_allreduce else []
        words += [f"fusion {self.fusion_mb} MB"] if self.fusion_mb is not None else []
        words += [f"cycle {self.cycle_ms:g} ms"] if self.cycle_ms is not None else []
        return ", ".join(words)

    def train_settings(self, known: Collection[str]) -> dict[str, Any]:
        """Return the settings of ringtune-train. known: the names of all that it has."""
        settings: dict[str, Any] = {"num_threads": self.threads}
        settings |= {"gradient_accumulation_steps": self.accumulation} if self.accumulation is not None else {}
        if self.fp16_allreduce:
            # Two names of one thing, where both are there.
            settings |= {"fp16_allreduce": True, **({"compression": "fp16"} if "compression" in known else {})}
        return settings

    def launch_flags(self) -> list[str]:
        """Return the flags of ringtune-launch run that are Horovod's settings."""
        fusion = ["--fusion-threshold-mb", str(self.fusion_mb)] if self.fusion_mb is not None else []
        return fusion + (["--cycle-time-ms", f"{self.cycle_ms:g}"] if self.cycle_ms is not None else [])

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a file."""
        return asdict(self)


@dataclass(frozen=True)
class Space:
    """What there is to choose from."""

    hosts: tuple[Host, ...]  # with their most slots
    cores: int  # physical, of the host that has fewest
    gpus: int  # likewise; 0: the CPU computes
    settings: Mapping[str, Any]  # of the run, all of ringtune-train's
    num_proc: int | None = None  # ranks that the user fixed
    fixed: frozenset[str] = frozenset()  # of Horovod's settings, those that the user fixed: fusion_mb, cycle_ms

    @property
    def batch(self) -> int:
        """Rows per step."""
        return int(self.settings["global_batch_size"] or DEFAULT_BATCH)

    @property
    def num_shards(self) -> int | None:
        """Parts of a step, where the run fixes them."""
        exact = DEFAULT_EXACT_SHARDS if self.settings["mode"] == "exact" else None
        return self.settings["num_shards"] or exact

    def total(self, choice: Choice) -> int:
        """Return the ranks of a choice on all hosts."""
        return self.num_proc or sum(min(choice.ranks, host.slots) for host in self.hosts)

    def rows(self, choice: Choice) -> int:
        """Return the rows of the largest shard."""
        shards = self.num_shards or self.total(choice) * (choice.accumulation or 1)
        return -(-self.batch // shards)

    def is_legal(self, choice: Choice) -> bool:
        """Return whether every rank has rows, and the shards can be dealt evenly."""
        total = self.total(choice)
        if self.num_shards:
            return self.num_shards % total == 0
        return total * (choice.accumulation or 1) <= self.batch


def placements(space: Space) -> list[Choice]:
    """Return the ways to divide a host's cores or GPUs among ranks, most ranks first. **Pure.**"""
    most = min(space.gpus or space.cores, max(host.slots for host in space.hosts))
    counts = {most, *(2**power for power in range(most.bit_length()) if 2**power <= most)}
    if space.num_proc is not None:
        counts = {-(-space.num_proc // len(space.hosts))}
    accumulation = None if space.num_shards else int(space.settings["gradient_accumulation_steps"] or 1)
    # In exact mode the number of threads is part of the sums.
    own_threads = space.settings["num_threads"] or (1 if space.settings["mode"] == "exact" else None)
    found = [Choice(n, own_threads or max(1, space.cores // n), accumulation) for n in sorted(counts, reverse=True)]
    return [each for each in found if space.is_legal(each)]


def shards(space: Space, best: Choice) -> list[Choice]:
    """Return the ways to deal a rank's rows into smaller parts. **Pure.**"""
    if best.accumulation is None or space.settings["gradient_accumulation_steps"]:
        return []
    return [replace(best, accumulation=best.accumulation * factor) for factor in ACCUMULATION]


def wire(space: Space, best: Choice) -> list[Choice]:
    """Return the precisions in which gradients can travel. **Pure.**"""
    other = space.settings.get("compression") not in (None, "none")
    fixed = space.settings["fp16_allreduce"] or space.settings["mode"] == "exact" or other
    return [] if fixed else [replace(best, fp16_allreduce=True)]


def fusion(space: Space, best: Choice) -> list[Choice]:
    """Return the sizes up to which Horovod joins small gradients. **Pure.**"""
    return [] if "fusion_mb" in space.fixed else [replace(best, fusion_mb=size) for size in FUSION_MB]


def cycle(space: Space, best: Choice) -> list[Choice]:
    """Return the intervals in which Horovod looks for work. **Pure.**"""
    return [] if "cycle_ms" in space.fixed else [replace(best, cycle_ms=each) for each in CYCLE_MS]


Stage = Callable[[Space, Choice], Sequence[Choice]]
#: What is varied after the placement, one after the other, each around the best so far; the last three are of the wire.
STAGES: tuple[tuple[str, Stage], ...] = (
    ("shards per rank", shards),
    ("precision of the wire", wire),
    ("fusion threshold", fusion),
    ("cycle time", cycle),
)
NEED_SEVERAL_RANKS = (wire, fusion, cycle)


def variations(space: Space, stage: Stage, best: Choice) -> list[Choice]:
    """Return what a stage tries around the best so far. **Pure.**"""
    if stage in NEED_SEVERAL_RANKS and space.total(best) == 1:
        return []
    return [each for each in stage(space, best) if space.is_legal(each)]
