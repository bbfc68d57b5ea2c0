"""The connection between the launcher and the supervisor of each rank: JSON objects, one a line, over TCP.

Keeper to launcher: ``hello`` (its rank and host), ``out`` and ``err`` (a line of the rank's output), ``exit`` (the exit
code), ``alive``. Launcher to supervisor: ``go`` (start the rank with this environment, and with that of ``here`` where
nothing else sets a variable), ``signal``, ``bye`` (exit), ``alive``. A side that sends nothing for SILENCE_LIMIT_S
counts as dead, so that a cut cable or a killed launcher leaves nothing running.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import json
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtune.train.contract import UsageError

ALIVE_EVERY_S = 2.0
SILENCE_LIMIT_S = 12.0
CONNECT_LIMIT_S = 20.0
SEND_LIMIT_S = 10.0


@dataclass(frozen=True)
class Address:
    """Where the launcher listens, and the token by which a supervisor shows that it belongs to the job."""

    host: str
    port: int
    token: str

    def __str__(self) -> str:
        return f"{self.host},{self.port},{self.token}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that ``str()`` wrote. Raises UsageError for anything else."""
        parts = text.split(",")
        if len(parts) != 3 or not parts[1].isdigit():
            raise UsageError(
                "RINGTUNE_CONTROL", "it is no address", legal="ADDRESS,PORT,TOKEN", todo="unset it: launchers set it"
            )
        return cls(parts[0], int(parts[1]), parts[2])


class Channel:
    """One end of a connection. Reading never blocks; sending does, up to SEND_LIMIT_S."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(SEND_LIMIT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.connection.fileno()

    def send(self, **message: Any) -> None:
        """Send a message; a broken connection only sets ``closed``."""
        if self.closed:
            return
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.closed = True

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived; sets ``closed`` at the end of the connection."""
        try:
            data = self.connection.recv(1 << 16, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return []
        *lines, self.unread = (self.unread + data).split(b"\n")
        return [message for line in lines if isinstance(message := _decode(line), dict)]

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        self.connection.close()


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None  # not a supervisor's: anybody may connect to an open port


def listen(advertised: str) -> tuple[socket.socket, Address]:
    """Return a listening socket and the address at which supervisors reach it."""
    family = socket.AF_INET6 if ":" in advertised else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((advertised if advertised.startswith("127.") else "", 0))
    listener.listen(1024)
    return listener, Address(advertised, listener.getsockname()[1], secrets.token_hex(16))


def connect(address: Address) -> Channel:
    """Return a connection to the launcher. Raises UsageError if it cannot be reached."""
    try:
        connection = socket.create_connection((address.host, address.port), timeout=CONNECT_LIMIT_S)
    except OSError as error:
        raise UsageError(
            "launch",
            f"{socket.gethostname()} cannot reach the launcher at {address.host} port {address.port}: {error}",
            legal="TCP between all hosts",
            todo="open the ports, or choose another way with --network-interface",
        ) from None
    return Channel(connection)


def own_address_towards(*hosts: str) -> str:
    """Return the address under which the hosts see this machine, by the routing table; nothing is sent.

    The first host whose name is known decides; SLURM's node names need not be. Raises UsageError if not even this
    machine's own name is.
    """
    for host in (*hosts, socket.gethostname()):
        try:
            family, kind, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    raise UsageError(
        "launch",
        f"none of the names {', '.join(hosts)} is known, nor this machine's own",
        legal="host names or addresses",
        todo="check /etc/hosts or the name service",
    )


def is_this_machine(host: str) -> bool:
    """Return whether a name or address means this machine."""
    if host == "localhost" or host.split(".")[0] == socket.gethostname().split(".")[0]:
        return True
    try:
        for family, kind, _, _, target in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                probe.bind((target[0], 0))  # only an address of this machine can be bound
                return True
    except OSError:
        return False
    return False


def interface_of(address: str) -> str:
    """Return the network interface that has an address: "lo" for a loopback address, "" if none is known to have it.

    That a host has another address at its loopback interface does not let others reach it by that interface.
    """
    try:
        own = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if own.is_loopback:
        return "lo"
    try:
        found = _ipv4_interfaces() if own.version == 4 else _ipv6_interfaces()
    except OSError:
        return ""
    return next((name for packed, name in found if packed == own.packed and name != "lo"), "")


def _ipv4_interfaces() -> list[tuple[bytes, str]]:
    """Return all IPv4 addresses of this machine and their interfaces (netdevice(7), SIOCGIFCONF)."""
    room = array.array("B", bytes(1 << 16))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), 0x8912, struct.pack("iP", len(room), room.buffer_info()[0]))
    length, _ = struct.unpack("iP", answer)
    entries = [room[start : start + 40].tobytes() for start in range(0, length, 40)]
    # A further address may be listed under a label of its own, such as eth0:1.
    return [(entry[20:24], entry[:16].split(b"\0")[0].decode().partition(":")[0]) for entry in entries]


def _ipv6_interfaces() -> list[tuple[bytes, str]]:
    """Return all IPv6 addresses of this machine and their interfaces (proc(5))."""
    lines = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    return [(bytes.fromhex(words[0]), words[-1]) for words in lines]
