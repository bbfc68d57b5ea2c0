"""Which cores a rank computes on: an equal share of its host's, within one NUMA node where possible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

Core = tuple[int, ...]  # the hardware threads (CPU numbers) of one physical core


def share(local_rank: int, local_size: int, nodes: Sequence[Sequence[Core]]) -> list[Core]:
    """Return the cores of one of ``local_size`` ranks; [] if there are fewer cores than ranks. **Pure.**

    nodes: the cores of each NUMA node. With as many ranks as nodes or more, ranks are spread over the nodes and each
    has cores of one node only, where the nodes are large enough; with fewer ranks, each takes whole nodes.
    """
    nodes = [list(node) for node in nodes if node]
    if sum(map(len, nodes)) < local_size:
        return []
    if local_size < len(nodes):
        mine = range(local_rank * len(nodes) // local_size, (local_rank + 1) * len(nodes) // local_size)
        return [core for number in mine for core in nodes[number]]
    by_node = [
        [rank for rank in range(local_size) if rank * len(nodes) // local_size == number]
        for number in range(len(nodes))
    ]
    if any(len(ranks) > len(node) for ranks, node in zip(by_node, nodes, strict=True)):
        return _cut([core for node in nodes for core in node], local_rank, local_size)
    number = next(number for number, ranks in enumerate(by_node) if local_rank in ranks)
    return _cut(nodes[number], by_node[number].index(local_rank), len(by_node[number]))


def _cut(cores: Sequence[Core], part: int, num_parts: int) -> list[Core]:
    return list(cores[part * len(cores) // num_parts : (part + 1) * len(cores) // num_parts])


def topology(allowed: set[int], sysfs: Path = Path("/sys/devices/system")) -> list[list[Core]]:
    """Return this host's NUMA nodes, each a list of cores, without the CPUs that this process may not use."""
    seen: dict[Core, None] = {}
    nodes = []
    for cpus in [_cpus(node / "cpulist") for node in sorted(sysfs.glob("node/node[0-9]*"), key=_number)] or [allowed]:
        cores = []
        for cpu in sorted(cpus & allowed):
            siblings = _cpus(sysfs / f"cpu/cpu{cpu}/topology/thread_siblings_list") & allowed
            core = tuple(sorted(siblings)) or (cpu,)
            if core not in seen:
                seen[core] = None
                cores.append(core)
        nodes.append(cores)
    return nodes


def _number(path: Path) -> int:
    return int(path.name.removeprefix("node"))


def _cpus(path: Path) -> set[int]:
    """Return the CPUs of a list such as ``0-3,8`` in a file of sysfs, none if there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return set()
    result: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        result |= set(range(int(first), int(last or first) + 1))
    return result


def bind(local_rank: int, local_size: int, *, bound: bool) -> int:
    """Bind this process to its share of the cores, if ``bound``.

    Returns the number of physical cores that no other rank of this host computes on, at least 1.
    """
    nodes = topology(os.sched_getaffinity(0))
    mine = share(local_rank, local_size, nodes)
    if mine and bound:
        os.sched_setaffinity(0, {cpu for core in mine for cpu in core})
    return len(mine) or 1
