"""One running job: starts the launcher, talks to the keeper of each rank, and ends when all ranks have.

One thread, one loop over everything that can happen: a keeper speaks, the launcher speaks, a signal arrives, a time is
up. What must never happen is that the job ends and leaves a rank running, or that a rank is gone and the job goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ringtune.launch import control
from ringtune.launch.blame import TRACEBACK, Ending, Verdict, judge
from ringtune.launch.plan import Command, Plan
from ringtune.launch.rendezvous import Rendezvous
from ringtune.train.contract import (
    CONTROL_VARIABLE,
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_USAGE,
    VERDICT_FILE,
    UsageError,
    broken_promises,
)

FAIL_GRACE_S = 2.0  # for the other ranks to fail by themselves after the first
TERM_GRACE_S = 3.0  # between SIGTERM and SIGKILL of what is left
LEAVE_GRACE_S = 5.0  # for the launcher to end when all ranks have
KEPT_LINES = 40  # of what a rank or the launcher says


@dataclass(frozen=True)
class Limits:
    """How long to wait for what, in seconds."""

    start_s: float = 120.0  # from the launcher's start until every rank's keeper has spoken
    stop_s: float = 90.0  # from a request to stop until the ranks are killed


class Seat:
    """What is known of one rank."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.channel: control.Channel | None = None
        self.hello: Mapping[str, Any] = {}
        self.heard = 0.0
        self.in_traceback = False
        self.log: TextIO | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of this rank."""
        return self.ending.exit_code is not None or bool(self.ending.lost)


class Job:
    """Runs a plan's command and supervises the ranks."""

    def __init__(
        self,
        plan: Plan,
        command: Command,
        advertised: str,
        *,
        limits: Limits,
        bound: bool,
        output_dir: Path | None,
        tagged: bool = True,
    ) -> None:
        self.plan, self.command, self.limits, self.bound = plan, command, limits, bound
        self.tagged = tagged
        self.seats = [Seat(Ending(slot)) for slot in plan.slots]
        self.width = len(str(plan.num_proc - 1))
        self.output_dir = output_dir
        self.selector = selectors.DefaultSelector()
        self.listener, self.address = control.listen(advertised)
        self.rendezvous = Rendezvous(plan.slots, advertised) if self._needs_rendezvous() else None
        self.noise: list[str] = []  # what the launcher itself says
        self.stalled: list[str] = []  # Horovod's words about ranks that others wait for
        self.fault = ""  # what is wrong with the launch as a whole
        self.fault_code = EXIT_FAILED
        self.started = False
        self.failed_at: float | None = None
        self.ordered_at: float | None = None  # when the ranks were told to end
        self.stop_at: float | None = None  # when the user asked to stop
        self.num_stops = 0
        self.stop_signal = 0
        self.left_at: float | None = None  # when the last rank was dismissed
        self.spoke = 0.0  # when the keepers last heard of us

    def _needs_rendezvous(self) -> bool:
        return self.plan.controller == "gloo" and self.plan.launcher != "horovodrun"  # which brings its own

    # From start to end

    def run(self) -> int:
        """Run the job and return its exit code; everything it started is gone then."""
        self._open_logs()
        self._watch_signals()
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        environment = {**self.plan.environment, **self.command.environment, CONTROL_VARIABLE: str(self.address)}
        self.began = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.command.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            assert self.process.stdout is not None
            os.set_blocking(self.process.stdout.fileno(), False)
            self.selector.register(self.process.stdout, selectors.EVENT_READ, self._launcher_spoke)
            while self._goes_on(time.monotonic()):
                for key, _ in self.selector.select(timeout=0.1):
                    key.data(key.fileobj)
                self._look_at_clock(time.monotonic())
            self._launcher_spoke(self.process.stdout)
        finally:
            self._clean_up()
        return self._report()

    def _open_logs(self) -> None:
        """Open a file for each rank. Raises UsageError where that cannot be; nothing has started yet."""
        if self.output_dir is None:
            return
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            for seat in self.seats:
                name = f"rank-{seat.ending.slot.rank:0{self.width}}.log"
                seat.log = (self.output_dir / name).open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"--output-dir {self.output_dir}", str(error.strerror), legal="a folder one may write to"
            ) from None

    def _goes_on(self, now: float) -> bool:
        if self.left_at is not None and now - self.left_at > LEAVE_GRACE_S:
            return False
        connected = any(seat.channel is not None and not seat.channel.closed for seat in self.seats)
        return self.process.poll() is None or (connected and not self._all_over())

    def _all_over(self) -> bool:
        return all(seat.is_over for seat in self.seats)

    def _clean_up(self) -> None:
        for seat in self.seats:
            if seat.channel is not None:
                seat.channel.close()  # a keeper whose line is cut ends its rank
            if seat.log is not None:
                seat.log.close()
        self.listener.close()
        if self.rendezvous is not None:
            self.rendezvous.stop()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(LEAVE_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    # The keepers

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        channel = control.Channel(connection)
        self.selector.register(channel, selectors.EVENT_READ, self._stranger)

    def _stranger(self, channel: control.Channel) -> None:
        """Hear the first words on a line; only the right token makes it a keeper's."""
        messages = channel.receive()
        for message in messages:
            if "hello" not in message or message.get("token") != self.address.token:
                channel.close()
                break
            self._welcome(channel, message)
            return
        if channel.closed:
            self.selector.unregister(channel)

    def _welcome(self, channel: control.Channel, message: Mapping[str, Any]) -> None:
        rank = int(message["hello"]["rank"])
        self.selector.unregister(channel)
        if not 0 <= rank < len(self.seats) or self.seats[rank].channel is not None:
            self._stop_all(
                f"a second process says it is rank {rank} (host {message['host']}): the launcher started "
                f"separate jobs, or more ranks than {len(self.seats)}"
            )
            channel.send(bye=True)
            return
        seat = self.seats[rank]
        seat.channel, seat.hello, seat.heard = channel, message, time.monotonic()
        self.selector.register(channel, selectors.EVENT_READ, lambda _: self._hear(seat))
        if all(each.channel for each in self.seats):
            self._start_ranks()

    def _start_ranks(self) -> None:
        wrong = mismatches(self.plan, [seat.hello for seat in self.seats])
        if wrong:
            self.fault_code = EXIT_USAGE
            self._stop_all("\n  ".join(["the ranks are not where they were promised:", *wrong]))
            return
        self.started = True
        first = self.seats[0].hello
        alone = len({seat.ending.slot.host for seat in self.seats}) == 1
        meeting = {"MASTER_ADDR": "127.0.0.1" if alone else str(first["address"]), "MASTER_PORT": str(first["port"])}
        for seat in self.seats:
            assert seat.channel is not None
            own = self.rendezvous.environment(seat.ending.slot) if self.rendezvous else {}
            seat.channel.send(go={**meeting, **own}, bound=self.bound)

    def _hear(self, seat: Seat) -> None:
        assert seat.channel is not None
        for message in seat.channel.receive():
            seat.heard = time.monotonic()
            for name in ("out", "err"):
                if name in message:
                    self._line(seat, name, str(message[name]))
            if "exit" in message:
                self._ended(seat, int(message["exit"]))
        if seat.channel.closed:
            self.selector.unregister(seat.channel)
            if not seat.is_over:
                self._lose(seat, "its keeper is gone: it was killed, or its host is down")

    def _line(self, seat: Seat, name: str, text: str) -> None:
        """Pass a line on; a traceback is kept for the end, where the one that matters is told once."""
        if seat.log is not None:
            print(text, file=seat.log, flush=True)
        ending = seat.ending
        if name == "err" and TRACEBACK in text and not seat.in_traceback:
            seat.in_traceback, ending.words = True, []
            ending.failed_at = ending.failed_at or time.monotonic()
        if seat.in_traceback:
            ending.words.append(text)
            return
        if name == "err":
            ending.words = [*ending.words[1 - KEPT_LINES :], text]
            self._note_stall(text)
        tag = f"[{ending.slot.rank:>{self.width}}] " if self.tagged else ""
        print(f"{tag}{text}", file=sys.stdout if name == "out" else sys.stderr, flush=True)

    def _note_stall(self, text: str) -> None:
        if text.strip() == "Missing ranks:":
            self.stalled = [text]
        elif self.stalled and text[:1].isdigit():
            self.stalled.append(text)

    def _ended(self, seat: Seat, code: int) -> None:
        seat.ending.exit_code, seat.ending.ended_at = code, time.monotonic()
        seat.ending.ordered = self.ordered_at is not None
        if code not in (0, EXIT_REQUEUE) and self.failed_at is None:
            self.failed_at = time.monotonic()
        if self._all_over():
            self._dismiss()

    def _lose(self, seat: Seat, why: str) -> None:
        seat.ending.lost, seat.ending.ended_at = why, time.monotonic()
        seat.ending.ordered = self.ordered_at is not None
        if self.failed_at is None:
            self.failed_at = time.monotonic()
        if self._all_over():
            self._dismiss()

    # Ending

    def _tell_all(self, **message: Any) -> None:
        for seat in self.seats:
            if seat.channel is not None:
                seat.channel.send(**message)

    def _dismiss(self) -> None:
        self.left_at = time.monotonic()
        self._tell_all(bye=True)

    def _stop_all(self, fault: str) -> None:
        """End a launch that went wrong before any rank has started."""
        self.fault = self.fault or fault
        self.ordered_at = self.left_at = time.monotonic()
        self._tell_all(bye=True)

    def _order_end(self, now: float) -> None:
        self.ordered_at = now
        self._tell_all(signal=int(signal.SIGTERM))

    def _look_at_clock(self, now: float) -> None:
        if not self.started and not self.fault:
            if now - self.began > self.limits.start_s:
                self._stop_all(self._absent(f"did not start within {self.limits.start_s:g} s"))
            elif self.process.poll() is not None:
                self._stop_all(
                    self._absent(f"never started; {self.plan.launcher} ended with code {self.process.returncode}")
                )
        for seat in self.seats:
            if seat.channel is not None and not seat.is_over and now - seat.heard > control.SILENCE_LIMIT_S:
                self._lose(seat, f"silent for {control.SILENCE_LIMIT_S:g} s: its host is down or cut off")
        if self.failed_at is not None and self.ordered_at is None and now - self.failed_at > FAIL_GRACE_S:
            self._order_end(now)
        if self.stop_at is not None and self.ordered_at is None and now - self.stop_at > self.limits.stop_s:
            self._order_end(now)
        if self.ordered_at is not None and now - self.ordered_at > TERM_GRACE_S:
            self._tell_all(signal=int(signal.SIGKILL))
        if now - self.spoke > control.ALIVE_EVERY_S:
            self.spoke = now
            self._tell_all(alive=True)

    def _absent(self, what: str) -> str:
        names = [
            f"{seat.ending.slot.rank} (host {seat.ending.slot.host})" for seat in self.seats if seat.channel is None
        ]
        return f"rank(s) {', '.join(names)} {what}"

    # Signals and the launcher's own words

    def _watch_signals(self) -> None:
        bell, self.bell_in = socket.socketpair()
        bell.setblocking(False)
        self.bell_in.setblocking(False)
        signal.set_wakeup_fd(self.bell_in.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.selector.register(bell, selectors.EVENT_READ, self._asked)

    def _asked(self, bell: socket.socket) -> None:
        """Pass a signal on to every rank; asked a second time to end, do not wait for them."""
        for number in bell.recv(4096):
            if number != signal.SIGUSR1:
                self.num_stops += 1
                self.stop_signal = number
            self.stop_at = self.stop_at or time.monotonic()
            if not self.started:
                self._stop_all(f"stopped by {signal.Signals(number).name} before the ranks had started")
                self.fault_code = 128 + number
            elif self.num_stops > 1:
                self._order_end(time.monotonic() - TERM_GRACE_S)
            else:
                self._tell_all(signal=number)

    def _launcher_spoke(self, stream: Any) -> None:
        try:
            while data := os.read(stream.fileno(), 1 << 16):
                self.noise += data.decode("utf-8", errors="replace").splitlines()
            if stream in self.selector.get_map():
                self.selector.unregister(stream)
        except (BlockingIOError, ValueError):
            pass  # nothing more for now

    # The end

    def _report(self) -> int:
        verdict = self._verdict()
        if self.output_dir is not None:
            (self.output_dir / VERDICT_FILE).write_text(json.dumps(asdict(verdict)) + "\n", encoding="utf-8")
        sys.stdout.flush()
        if verdict.headline:
            print(f"ringtune-launch: {verdict.headline}", *verdict.words, sep="\n", file=sys.stderr)
            if verdict.num_consequences:
                where = f" (see {self.output_dir})" if self.output_dir else " (--output-dir keeps what they said)"
                print(f"{verdict.num_consequences} other rank(s) failed after it{where}", file=sys.stderr)
        else:
            for seat in self.seats:  # tracebacks that a rank survived
                for line in seat.ending.words if seat.in_traceback else ():
                    print(f"[{seat.ending.slot.rank:>{self.width}}] {line}", file=sys.stderr)
        if verdict.headline and self.noise and (self.fault or verdict.exit_code):
            print(
                f"what {self.plan.launcher} said:",
                *(f"  {line}" for line in self.noise[-KEPT_LINES:]),
                sep="\n",
                file=sys.stderr,
            )
        return verdict.exit_code

    def _verdict(self) -> Verdict:
        if self.fault:
            return Verdict(self.fault_code, self.fault)
        verdict = judge([seat.ending for seat in self.seats], self.stalled)
        asked = {-self.stop_signal, 128 + self.stop_signal}
        if self.num_stops and any(seat.ending.exit_code in asked for seat in self.seats):
            return Verdict(128 + self.stop_signal, f"stopped by {signal.Signals(self.stop_signal).name}")
        return verdict


def mismatches(plan: Plan, hellos: list[Mapping[str, Any]]) -> list[str]:
    """Return what the ranks have that the plan did not promise, a phrase each. **Pure.**"""
    sizes = [
        f"rank {slot.rank} (host {hello['host']}) sees {hello['hello']['size']} ranks, promised {slot.size}"
        for slot, hello in zip(plan.slots, hellos, strict=True)
        if hello["hello"]["size"] != slot.size
    ]
    found = [(str(each["host"]), each["hello"]["local_rank"], each["hello"]["local_size"]) for each in hellos]
    return sizes + broken_promises([(slot.host, slot.local_rank, slot.local_size) for slot in plan.slots], found)
