"""Several hosts on one machine, out of Linux namespaces: ``python tests/cluster/hosts.py a b c -- COMMAND``.

Each host has its own name, address, processes, ``/tmp``, ``/run`` and sshd, and a network link that can be slowed down
or cut. Everything lives inside one process's namespaces: when that process ends, however it ends, the kernel takes
processes, links, mounts and keys away with it, and nothing is ever written outside. Needs root, iproute2 and
openssh-server.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
STARTING_LIMIT_S = 20
NEEDED = {
    "ip": "iproute2",
    "tc": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "nsenter": "util-linux",
}
_SWITCH = Path(__file__).with_name("switch.sh").read_text()
_HOST = Path(__file__).with_name("host.sh").read_text()  # with the fields of str.format


def missing() -> list[str]:
    """Return the Debian packages that are needed and absent, and "root" for want of rights."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = sorted({package for name, package in NEEDED.items() if not shutil.which(name, path=path)})
    return [*packages, *(["root"] if os.geteuid() else [])]


@dataclass(frozen=True)
class Done:
    """How a command on a host ended."""

    returncode: int
    output: str  # stdout and stderr as they came
    seconds: float


class Cluster:
    """Hosts that can reach each other by name; use it as a context manager.

    shared: a folder that all hosts see under its own path, unlike the rest of ``/tmp``. ssh_port: of every sshd.
    """

    def __init__(
        self, *names: str, shared: Path, ssh_port: int = 22, sshd_options: Mapping[str, str] | None = None
    ) -> None:
        self.names, self.shared, self.ssh_port = names, shared, ssh_port
        self.sshd_options = dict(sshd_options or {})  # host → more arguments of its sshd
        self.pids: dict[str, int] = {}  # the first process of each host, as seen from outside
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Cluster:
        hidden = [each for each in (os.getcwd(), sys.prefix) if Path(each).resolve().is_relative_to("/tmp")]
        if hidden:
            raise RuntimeError(
                f"every host has a /tmp of its own and does not see {hidden[0]}: clone to another folder"
            )
        try:
            self.switch = self._start(
                [
                    "unshare",
                    "--mount",
                    "--net",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--mount-proc",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    _SWITCH,
                ]
            )
            for name in self.names:
                self._add(name)
            for name in self.names:
                self._wait_for_sshd(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()  # of the first one, the switch, all others are descendants: the kernel does the rest
        for process in self.processes:
            process.communicate()
        deadline = time.monotonic() + STARTING_LIMIT_S
        while any(Path(f"/proc/{pid}").exists() for pid in self.pids.values()) and time.monotonic() < deadline:
            time.sleep(0.02)

    # What tests do with it

    def run(
        self, host: str, command: Sequence[str], *, limit_s: float = 120, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run a command on a host as a user logged in there would; after the limit all of its processes are killed."""
        started = time.monotonic()
        process = self.popen(host, command, env=env)
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill_on(host)
            output, _ = process.communicate()
            raise AssertionError(f"no end after {limit_s} s on {host}: {shlex.join(command)}\n{output}") from None
        return Done(process.returncode, output, time.monotonic() - started)

    def popen(
        self, host: str, command: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on a host."""
        return subprocess.Popen(
            self._inside(host, command),
            env=None if env is None else dict(env),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def pids_on(self, host: str, word: str = "") -> list[int]:
        """Return the processes of a host, as seen from outside, whose command line has the word; sshd's own apart."""
        own = os.readlink(f"/proc/{self.pids[host]}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if os.readlink(folder / "ns/pid") == own and words and "sshd" not in words.split()[0] and word in words:
                    found.append(int(folder.name))
            except OSError:
                continue  # it has just ended
        return found

    def kill_on(self, host: str, word: str = "", number: int = signal.SIGKILL) -> None:
        """Send a signal to the processes of a host whose command line has the word; some may end meanwhile."""
        for pid in self.pids_on(host, word):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def command_lines(self) -> list[str]:
        """Return what still runs on any host."""
        lines = []
        for host in self.pids:
            for pid in self.pids_on(host):
                try:
                    lines.append(f"{host}: {Path(f'/proc/{pid}/cmdline').read_text()}".replace("\0", " "))
                except OSError:
                    continue
        return lines

    def cut(self, host: str) -> None:
        """Pull a host's network cable."""
        self._switch("ip", "link", "set", self._port(host), "down")

    def slow_down(self, host: str, rate: str) -> None:
        """Limit a host's link in both directions, e.g. to ``1gbit`` (tc-tbf(8))."""
        limit = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
        self._switch("tc", "qdisc", "replace", "dev", self._port(host), *limit)
        done = self.run(host, ["tc", "qdisc", "replace", "dev", "eth0", *limit])
        assert done.returncode == 0, done.output

    def power_off(self, host: str) -> None:
        """End a host at once."""
        os.kill(self.pids[host], signal.SIGKILL)

    def address(self, host: str) -> str:
        """Return a host's address."""
        return f"{NETWORK}.{self.names.index(host) + 1}"

    # How it is made

    def _add(self, name: str) -> None:
        number = self.names.index(name) + 1
        hosts = "\n".join(f"{self.address(each)} {each}" for each in self.names)
        script = _HOST.format(
            name=name,
            shared=shlex.quote(str(self.shared)),
            hosts=hosts,
            address=f"{NETWORK}.{number}",
            port=self.ssh_port,
            extra=self.sshd_options.get(name, ""),
        )
        self.pids[name] = self._start(
            [
                "nsenter",
                "-t",
                str(self.switch),
                "--mount",
                "--net",
                "--pid",
                "unshare",
                "--mount",
                "--net",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
            ]
        )
        port = self._port(name)
        self._switch("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.pids[name]))
        self._switch("ip", "link", "set", port, "master", "bridge", "up")
        stream = self.processes[-1].stdin
        assert stream is not None
        stream.write("go\n")
        stream.flush()

    def _start(self, command: Sequence[str]) -> int:
        """Start a first process and return its number once it says that it is ready."""
        process = subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"no host could be made: {line}{process.stdout.read()}")
        pid = process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid

    def _wait_for_sshd(self, name: str) -> None:
        deadline = time.monotonic() + STARTING_LIMIT_S
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{self.ssh_port}"
        while subprocess.run(self._inside(name, ["bash", "-c", probe]), capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd of {name} does not answer")
            time.sleep(0.02)

    def _inside(self, host: str, command: Sequence[str]) -> list[str]:
        return [
            "nsenter",
            "-t",
            str(self.pids[host]),
            "--mount",
            "--net",
            "--uts",
            "--pid",
            "sh",
            "-c",
            f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}",
        ]

    def _switch(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.switch), "--net", *command], check=True, capture_output=True)

    def _port(self, host: str) -> str:
        return f"port{self.names.index(host) + 1}"


def die_with_parent() -> None:
    """In a new process: be killed when the parent ends, however it ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> int:
    """Make the named hosts, run a command on the first of them, and take everything down."""
    if "--" not in sys.argv or missing():
        print(__doc__, f"missing: {', '.join(missing()) or 'nothing'}", file=sys.stderr)
        return 2
    cut = sys.argv.index("--")
    with tempfile.TemporaryDirectory() as shared, Cluster(*sys.argv[1:cut], shared=Path(shared)) as cluster:
        done = cluster.run(sys.argv[1], sys.argv[cut + 1 :], limit_s=3600)
        print(done.output, end="")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
