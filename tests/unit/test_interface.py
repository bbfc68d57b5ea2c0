"""Gloo and NCCL are given the network interface that has the address by which a rank reaches the launcher."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ringtune.launch import rank

#: One interface with several addresses, in a network of its own.
NETWORK = (
    "ip link set lo up && ip addr add 10.7.0.1/32 dev lo && ip link add eth7 type veth peer name eth8"
    " && for each in '10.9.0.1/24' '10.9.0.2/24' '10.8.0.3/24 label eth7:1' 'fd00::5/64 nodad'; do"
    " ip addr add $each dev eth7 || exit; done"
)
CODE = (
    "import sys; from ringtune.launch.control import interface_of; print([interface_of(each) for each in sys.argv[1:]])"
)
INTERFACES = {
    "10.9.0.1": "eth7",
    "10.9.0.2": "eth7",  # a further one of the same network
    "10.8.0.3": "eth7",  # of another network, under a label
    "fd00::5": "eth7",
    "127.0.0.1": "lo",
    "127.0.1.1": "lo",  # that of this machine's name on Debian
    "::1": "lo",
    "10.7.0.1": "",  # others may be routed to it, and not to 127.0.0.1, which the interface has as well
    "10.9.0.77": "",
    "": "",
}


def test_the_interface_of_an_address_is_found():
    unshared = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
    if subprocess.run([*unshared, NETWORK], capture_output=True, check=False).returncode:
        pytest.skip("no network of its own can be made here")
    done = subprocess.run(
        [*unshared, f'{NETWORK} && exec "$@"', "sh", sys.executable, "-c", CODE, *INTERFACES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{list(INTERFACES.values())}\n", done.stderr


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])  # nobody has these (RFC 5737, RFC 3849)
def test_an_address_that_no_interface_has_leaves_the_choice_to_gloo_and_nccl(address):
    assert rank.network_variables(rank.RankPlacement(0, 4, 0, 2), {}, lambda: address) == {}


def test_ranks_on_one_host_use_loopback():
    variables = rank.network_variables(
        rank.RankPlacement(0, 2, 0, 2), {"HOROVOD_CONTROLLER": "gloo"}, lambda: "127.0.0.1"
    )
    assert variables == {"HOROVOD_GLOO_IFACE": "lo", "NCCL_SOCKET_IFNAME": "=lo"}
