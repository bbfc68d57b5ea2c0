"""Supervisor of one rank: ``python -m ringtune.launch.rank -- COMMAND``, started by any launcher in the rank's place.

It reads its rank from the launcher's variables, sends it to ``ringtune-launch``, receives the rest of the environment,
binds the cores and runs the command, whose output it sends line by line. It outlives neither its launcher nor its rank.
Started by hand, without the address of ``ringtune-launch``, it only sets the environment and runs the command.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from ringtune.launch import control, cores, signals, slurm_job
from ringtune.train.contract import (
    CONTROL_VARIABLE,
    EXIT_USAGE,
    LOCAL_RANK_VARIABLES,
    LOCAL_SIZE_VARIABLES,
    RANK_VARIABLES,
    SIZE_VARIABLES,
    UsageError,
    first_integer,
)

KILL_AFTER_S = 3.0  # between SIGTERM and SIGKILL when the launcher is gone
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@dataclass(frozen=True)
class RankPlacement:
    """The rank and local rank that a launcher's variables give to a process."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def network_variables(own: RankPlacement, environ: Mapping[str, str], own_address: Callable[[], str]) -> dict[str, str]:
    """Return the variables by which Gloo and NCCL use the network that reaches the launcher.

    By themselves they may choose one that other hosts do not reach, a container's bridge for example. An interface that
    NCCL is to take by its whole name has a = before it (NCCL's manual, ``NCCL_SOCKET_IFNAME``). There are none where
    the interface is not found: a wrong one would keep the hosts apart.
    """
    if own.local_size == own.size and environ.get("HOROVOD_CONTROLLER") != "gloo":
        return {}
    interface = control.interface_of(own_address())
    return {"HOROVOD_GLOO_IFACE": interface, "NCCL_SOCKET_IFNAME": f"={interface}"} if interface else {}


def placement(environ: Mapping[str, str]) -> RankPlacement:
    """Return the placement that this process has by its launcher's variables. **Pure.**

    Raises UsageError if there are none.
    """
    rank, size = first_integer(RANK_VARIABLES, environ), first_integer(SIZE_VARIABLES, environ)
    if rank is None or size is None:
        raise UsageError(
            "launch",
            "no launcher gave this process a rank",
            legal=f"one of {', '.join(RANK_VARIABLES)}",
            todo="start it with ringtune-launch run, horovodrun, mpirun or srun",
        )
    local_rank = first_integer(LOCAL_RANK_VARIABLES, environ)
    local_size = first_integer(LOCAL_SIZE_VARIABLES, environ)
    if local_size is None and "SLURM_STEP_TASKS_PER_NODE" in environ:
        tasks = slurm_job.expand_tasks(environ["SLURM_STEP_TASKS_PER_NODE"], "SLURM_STEP_TASKS_PER_NODE")
        local_size = tasks[int(environ.get("SLURM_NODEID", "0"))]
    return RankPlacement(rank, size, local_rank or 0, local_size or 1)


def main() -> None:
    """Run the command as this rank and exit with its exit code."""
    command = sys.argv[sys.argv.index("--") + 1 :]
    try:
        own = placement(os.environ)
        if CONTROL_VARIABLE not in os.environ:
            _run_alone(own, command)
        address = control.Address.parse(os.environ.pop(CONTROL_VARIABLE))
        Keeper(own, command, control.connect(address), address.token).run()
    except UsageError as error:
        print(f"ringtune-launch: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_USAGE)


def _run_alone(own: RankPlacement, command: list[str]) -> None:
    num_cores = _bind(own, bound=True)
    os.environ.update(torch_variables(own))
    os.environ.setdefault("OMP_NUM_THREADS", str(num_cores))
    os.execvp(command[0], command)


def _bind(own: RankPlacement, *, bound: bool) -> int:
    """Bind this process to its cores, if srun has not done it yet, and return how many are its own."""
    # mpirun's ranks in SLURM have the variables of srun, which has started its daemon.
    is_of_srun = not {"HOROVOD_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ)
    if is_of_srun and os.environ.get("SLURM_CPU_BIND_TYPE", "").startswith(("mask", "map")):
        return cores.bind(0, 1, bound=False)
    return cores.bind(own.local_rank, own.local_size, bound=bound)


def torch_variables(own: RankPlacement) -> dict[str, str]:
    """Return the variables in which torchrun passes a script its rank. **Pure.** (PyTorch's manual of torchrun.)"""
    return {
        "RANK": str(own.rank),
        "WORLD_SIZE": str(own.size),
        "LOCAL_RANK": str(own.local_rank),
        "LOCAL_WORLD_SIZE": str(own.local_size),
    }


class Keeper:
    """Starts, watches and ends one rank; one thread, one loop."""

    def __init__(self, placement: RankPlacement, command: list[str], channel: control.Channel, token: str) -> None:
        self.placement, self.command, self.channel = placement, command, channel
        self.process: subprocess.Popen[bytes] | None = None
        self.selector = selectors.DefaultSelector()
        self.partial: dict[str, bytes] = {"out": b"", "err": b""}  # the line that has not ended yet
        self.received_at = self.sent_at = time.monotonic()
        self.released = False  # whether the launcher has sent "bye"
        self.exit_sent = False  # True also where no rank was started
        self._watch_signals()
        self.selector.register(channel, selectors.EVENT_READ, self._from_launcher)
        host = socket.gethostname()
        channel.send(
            hello=asdict(placement),
            token=token,
            host=host,
            pid=os.getpid(),
            address=self._own_address(),
            port=_free_port(),
            num_cpus=len(os.sched_getaffinity(0)),
        )

    def run(self) -> None:
        """Serve until the launcher releases this, or until the launcher is gone and the rank has been ended."""
        while not (self.released and self.exit_sent):
            for key, _ in self.selector.select(timeout=0.5):
                key.data(key.fileobj)
            now = time.monotonic()
            if now - self.sent_at > control.ALIVE_EVERY_S:
                self.sent_at = now
                self.channel.send(alive=True)
            if self.channel.closed or now - self.received_at > control.SILENCE_LIMIT_S:
                self._end_rank()
                sys.exit(1)
        # ringtune-launch knows how the rank ended and decides what follows; by a failure code mpirun would interfere.
        sys.exit(0)

    # Messages and signals

    def _from_launcher(self, channel: control.Channel) -> None:
        for message in channel.receive():
            self.received_at = time.monotonic()
            if "go" in message:
                self._start(message["go"], message["here"], bound=message["bound"])
            if "signal" in message:
                self._signal(int(message["signal"]))
            if "bye" in message:
                self.released = True
                self.exit_sent = self.exit_sent or self.process is None

    def _watch_signals(self) -> None:
        """Watch for the end of the rank and requests to stop."""
        self.wakeup, self.wakeup_sender = signals.watch((*FORWARDED, signal.SIGCHLD))
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._handle_signals)

    def _handle_signals(self, wakeup: socket.socket) -> None:
        for number in wakeup.recv(4096):
            if number == signal.SIGCHLD:
                self._check_rank()
            else:
                self._signal(signals.for_ranks(number))

    # The rank

    def _start(self, environment: Mapping[str, str], here: Mapping[str, str], *, bound: bool) -> None:
        num_cores = _bind(self.placement, bound=bound)
        env = {**here, **os.environ, **environment, **torch_variables(self.placement), "PYTHONUNBUFFERED": "1"}
        env.setdefault("OMP_NUM_THREADS", str(num_cores))
        env = {**network_variables(self.placement, env, self._own_address), **env}
        try:
            self.process = subprocess.Popen(
                self.command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            self.channel.send(err=f"{self.command[0]}: {error.strerror}")
            self.channel.send(exit=127)
            self.exit_sent = True
            return
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self.selector.register(stream, selectors.EVENT_READ, self._reader(name))

    def _reader(self, name: str) -> Callable[[object], None]:
        def read(stream: object) -> None:
            data = os.read(stream.fileno(), 1 << 16)  # type: ignore[attr-defined]
            if not data:
                self.selector.unregister(stream)  # type: ignore[arg-type]
            self._send_lines(name, data, whole=not data)

        return read

    def _send_lines(self, name: str, data: bytes, *, whole: bool) -> None:
        """Send the whole lines; the carriage return of a progress bar ends one too."""
        *lines, rest = (self.partial[name] + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if whole and rest:
            lines, rest = [*lines, rest], b""
        self.partial[name] = rest
        for line in lines:
            self.channel.send(**{name: line.decode("utf-8", errors="replace")})

    def _is_running(self) -> bool:
        """Return whether the rank runs. It is not reaped by that: until then no other process gets its number."""
        assert self.process is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _check_rank(self) -> None:
        if self.process is None or self.exit_sent or self._is_running():
            return
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            assert stream is not None
            try:
                while data := os.read(stream.fileno(), 1 << 16):
                    self._send_lines(name, data, whole=False)
            except BlockingIOError:
                pass  # a grandchild holds the pipe; what the rank itself wrote has been read
            self._send_lines(name, b"", whole=True)
        self._signal(signal.SIGKILL)  # processes that the rank left running in its group
        self.channel.send(exit=self.process.wait())
        self.exit_sent = True

    def _signal(self, number: int) -> None:
        if self.process is None:
            self.released = self.exit_sent = True  # nothing was started yet
        elif not self.exit_sent:  # else the rank has been reaped, and another group may have its number
            with suppress(PermissionError):  # a rank of another user, by sudo, is not ours to end
                os.killpg(self.process.pid, number)

    def _end_rank(self) -> None:
        if self.process is not None and not self.exit_sent:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + KILL_AFTER_S
            while self._is_running() and time.monotonic() < deadline:
                time.sleep(0.05)
            self._signal(signal.SIGKILL)

    def _own_address(self) -> str:
        return str(self.channel.connection.getsockname()[0])


def die_with_parent() -> None:
    """Let the kernel kill the new process when the supervisor ends, in any way (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_port() -> int:
    """Return a port that is free now, for a script's own rendezvous (MASTER_PORT)."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
