"""Which rank runs where: a pure function of the hosts and the number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringtune.launch.hosts import Host
from ringtune.train.contract import UsageError


@dataclass(frozen=True)
class RankSlot:
    """The placement of one rank, in Horovod's terms."""

    host: str
    rank: int  # 0 to size - 1, host by host
    size: int
    local_rank: int  # 0 to local_size - 1 on this host
    local_size: int
    cross_rank: int  # number of this host among those that have this local rank
    cross_size: int


def assign(hosts: Sequence[Host], num_proc: int) -> list[RankSlot]:
    """Return the slots of ranks 0 to ``num_proc - 1``: hosts are filled in order, the rest stay idle. **Pure.**

    Raises UsageError if there are fewer slots than processes.
    """
    if num_proc < 1:
        raise UsageError("-np", f"{num_proc} starts nothing", legal="a whole number from 1")
    total = sum(host.slots for host in hosts)
    if num_proc > total:
        raise UsageError(
            "-np",
            f"{num_proc} processes do not fit into {total} slots ({','.join(map(str, hosts))})",
            legal=f"at most {total}",
            todo="name more hosts or slots, or lower -np",
        )
    sizes = []
    left = num_proc
    for host in hosts:
        sizes.append(min(host.slots, left))
        left -= sizes[-1]
    slots: list[RankSlot] = []
    hosts_with = [sum(size > local_rank for size in sizes) for local_rank in range(max(sizes))]
    hosts_before = [0] * len(hosts_with)
    for host, local_size in zip(hosts, sizes, strict=True):
        for local_rank in range(local_size):
            slots.append(
                RankSlot(
                    host=host.name,
                    rank=len(slots),
                    size=num_proc,
                    local_rank=local_rank,
                    local_size=local_size,
                    cross_rank=hosts_before[local_rank],
                    cross_size=hosts_with[local_rank],
                )
            )
            hosts_before[local_rank] += 1
    return slots


def used_hosts(slots: Sequence[RankSlot]) -> list[Host]:
    """Return the hosts that have ranks, with as many slots as ranks. **Pure.**"""
    return [Host(slot.host, slot.local_size) for slot in slots if slot.local_rank == 0]
