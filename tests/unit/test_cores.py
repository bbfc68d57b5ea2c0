"""Which cores each rank of a host computes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ringtune.launch import cores


@given(st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_ranks_share_the_cores_disjointly_and_evenly_within_nodes(local_size, sizes):
    count = iter(range(1000))
    nodes = [[(next(count), next(count)) for _ in range(size)] for size in sizes]
    shares = [cores.share(rank, local_size, nodes) for rank in range(local_size)]
    flat = [core for each in shares for core in each]
    if sum(sizes) < local_size:
        assert not flat
        return
    assert len(set(flat)) == len(flat) and all(shares)
    home = {core: number for number, node in enumerate(nodes) for core in node}
    if len(set(sizes)) == 1 and local_size % len(nodes) == 0:
        assert all(len({home[core] for core in each}) == 1 for each in shares)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_topology_is_read_from_sysfs_without_forbidden_cpus(tmp_path):
    for node, cpus in ((0, "0-1,4-5"), (1, "2-3,6-7")):
        (tmp_path / f"node/node{node}").mkdir(parents=True)
        (tmp_path / f"node/node{node}/cpulist").write_text(cpus + "\n")
    for cpu in range(8):
        (tmp_path / f"cpu/cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu/cpu{cpu}/topology/thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert cores.topology(set(range(8)), tmp_path) == [[(0, 4), (1, 5)], [(2, 6), (3, 7)]]
    assert cores.topology({1, 2, 5}, tmp_path) == [[(1, 5)], [(2,)]]
    assert cores.topology({0, 1}, tmp_path / "none") == [[(0,), (1,)]]
