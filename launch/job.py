"""One running job: starts the launcher, talks with each rank's supervisor, and ends when all ranks have.

One thread, one loop over all events: a message of a supervisor, output of the launcher, a signal, a time limit. The job
must never end and leave a rank running, and never go on without one of its ranks.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringtune.launch import control, signals
from ringtune.launch.blame import Ending, Verdict, judge
from ringtune.launch.environment import is_gpu_choice
from ringtune.launch.launcher_process import END_GRACE_S, LauncherProcess
from ringtune.launch.plan import Command, LaunchPlan, Timeouts
from ringtune.launch.rank_output import KEPT_LINES, RankOutput
from ringtune.launch.rank_state import RankState, mismatches
from ringtune.launch.rendezvous import Rendezvous
from ringtune.train.contract import CONTROL_VARIABLE, EXIT_FAILED, EXIT_USAGE, ORDERLY, VERDICT_FILE

FAIL_GRACE_S = 2.0  # for the other ranks to fail by themselves after the first
TERM_GRACE_S = 3.0  # between SIGTERM and SIGKILL of the remaining ranks


class Job:
    """Runs a plan's command and supervises the ranks."""

    def __init__(
        self,
        plan: LaunchPlan,
        command: Command,
        advertised: str,
        *,
        timeouts: Timeouts,
        bound: bool,
        output_dir: Path | None,
        tagged: bool = True,
    ) -> None:
        self.plan, self.command, self.timeouts, self.bound = plan, command, timeouts, bound
        self.states = [RankState(Ending(slot)) for slot in plan.slots]
        self.output_dir = output_dir
        self.rank_output = RankOutput(self.states, output_dir, tagged=tagged)
        self.selector = selectors.DefaultSelector()
        self.listener, self.address = control.listen(advertised)
        needs_rendezvous = plan.controller == "gloo" and plan.launcher != "horovodrun"  # which has one of its own
        self.rendezvous = Rendezvous(plan.slots, advertised) if needs_rendezvous else None
        self.launch_failure = ""  # why the launch as a whole failed
        self.launch_exit_code = EXIT_FAILED  # the job's exit code after a launch failure
        self.started = False  # whether the ranks' programs were started
        # Times are of time.monotonic().
        self.failed_at: float | None = None  # when the first rank failed
        self.terminated_at: float | None = None  # when the ranks were first asked to end
        self.stop_requested_at: float | None = None  # when the user first asked to stop
        self.released_at: float | None = None  # when the supervisors were allowed to exit
        self.sent_at = 0.0  # when the supervisors were last sent a sign of life
        self.num_stop_signals = 0  # SIGUSR1 not counted
        self.stop_signal = 0

    # From start to end

    def run(self) -> int:
        """Run the job and return its exit code; everything it started is gone then."""
        self.rank_output.open_logs()
        self._watch_signals()
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        environment = {**self.plan.environment, **self.command.environment, CONTROL_VARIABLE: str(self.address)}
        self.began_at = time.monotonic()
        try:
            self.launcher = LauncherProcess(self.command.argv, environment)
            self.selector.register(self.launcher, selectors.EVENT_READ, self._read_launcher)
            while self._is_running(time.monotonic()):
                for key, _ in self.selector.select(timeout=0.1):
                    key.data(key.fileobj)
                self._check_times(time.monotonic())
            self._read_launcher(self.launcher)
            if not self.started and not self.launch_failure:
                self._check_start(time.monotonic())  # the launcher may end before the first round of the loop
        finally:
            self._clean_up()
        return self._report()

    def _is_running(self, now: float) -> bool:
        if _passed(self.released_at, END_GRACE_S, now):
            return False
        connected = any(state.channel is not None and not state.channel.closed for state in self.states)
        return self.launcher.exit_code() is None or (connected and not self._all_ended())

    def _all_ended(self) -> bool:
        return all(state.has_ended for state in self.states)

    def _read_launcher(self, launcher: LauncherProcess) -> None:
        if launcher.read() and launcher in self.selector.get_map():
            self.selector.unregister(launcher)

    def _clean_up(self) -> None:
        for state in self.states:
            if state.channel is not None:
                state.channel.close()  # a supervisor that loses its connection ends its rank
        self.rank_output.close_logs()
        self.listener.close()
        if self.rendezvous is not None:
            self.rendezvous.stop()
        self.launcher.end()

    # The supervisors

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        channel = control.Channel(connection)
        self.selector.register(channel, selectors.EVENT_READ, self._authenticate)

    def _authenticate(self, channel: control.Channel) -> None:
        """Read the first message of a connection: it is a supervisor's if it has the job's token."""
        messages = channel.receive()
        for message in messages:
            if "hello" not in message or message.get("token") != self.address.token:
                channel.close()
                break
            self._add_supervisor(channel, message)
            return
        if channel.closed:
            self.selector.unregister(channel)

    def _add_supervisor(self, channel: control.Channel, message: Mapping[str, Any]) -> None:
        rank = int(message["hello"]["rank"])
        self.selector.unregister(channel)
        if not 0 <= rank < len(self.states) or self.states[rank].channel is not None:
            self._abort(
                f"a second process has rank {rank} (host {message['host']}): the launcher started "
                f"separate jobs, or more ranks than {len(self.states)}"
            )
            channel.send(bye=True)
            return
        state = self.states[rank]
        state.channel, state.hello, state.received_at = channel, message, time.monotonic()
        self.selector.register(channel, selectors.EVENT_READ, lambda _: self._receive(state))
        if all(each.channel for each in self.states):
            self._start_ranks()

    def _start_ranks(self) -> None:
        wrong = mismatches(self.plan, [state.hello for state in self.states])
        if wrong:
            self.launch_exit_code = EXIT_USAGE
            self._abort("\n  ".join(["the ranks are not where they were promised:", *wrong]))
            return
        self.started = True
        first = self.states[0].hello
        on_one_host = len({state.ending.slot.host for state in self.states}) == 1
        master = "127.0.0.1" if on_one_host else str(first["address"])
        # horovodrun drops CUDA_VISIBLE_DEVICES even where the user asks for it.
        asked = {name: value for name, value in self.plan.environment.items() if is_gpu_choice(name)}
        is_here = {host.name: control.is_this_machine(host.name) for host in self.plan.hosts}
        for state in self.states:
            assert state.channel is not None
            own = self.rendezvous.environment(state.ending.slot) if self.rendezvous else {}
            environment = {"MASTER_ADDR": master, "MASTER_PORT": str(first["port"]), **own, **asked}
            here = self.plan.here if is_here[state.ending.slot.host] else {}
            state.channel.send(go=environment, here=here, bound=self.bound)

    def _receive(self, state: RankState) -> None:
        assert state.channel is not None
        for message in state.channel.receive():
            state.received_at = time.monotonic()
            for stream in ("out", "err"):
                if stream in message:
                    self.rank_output.take_line(state, stream, str(message[stream]))
            if "exit" in message:
                state.ending.exit_code = int(message["exit"])
                self._record_end(state, failed=state.ending.exit_code not in ORDERLY)
        if state.channel.closed:
            self.selector.unregister(state.channel)
            if not state.has_ended:
                self._record_loss(state, "its supervisor is gone: it was killed, or its host is down")

    def _record_loss(self, state: RankState, why: str) -> None:
        state.ending.lost = why
        self._record_end(state, failed=True)

    def _record_end(self, state: RankState, *, failed: bool) -> None:
        state.ending.ended_at = time.monotonic()
        state.ending.was_terminated = self.terminated_at is not None
        if failed and self.failed_at is None:
            self.failed_at = time.monotonic()
        if self._all_ended():
            self.released_at = time.monotonic()
            self._send_all(bye=True)

    def _send_all(self, **message: Any) -> None:
        for state in self.states:
            if state.channel is not None:
                state.channel.send(**message)

    # Requests to stop, failures and time limits

    def _watch_signals(self) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
        wakeup, self.wakeup_sender = signals.watch(numbers)
        self.selector.register(wakeup, selectors.EVENT_READ, self._handle_signals)

    def _handle_signals(self, wakeup: socket.socket) -> None:
        """Pass a signal on to every rank; the second request to end terminates the ranks at once."""
        for number in wakeup.recv(4096):
            if number == signal.SIGHUP and self.stop_requested_at is not None:
                continue  # a terminal that closes sends more than one, and nobody asks a second time by it
            if number != signal.SIGUSR1:
                self.num_stop_signals += 1
                self.stop_signal = number
            self.stop_requested_at = self.stop_requested_at or time.monotonic()
            if not self.started:
                self._abort(f"stopped by {signal.Signals(number).name} before the ranks had started")
                self.launch_exit_code = 128 + number
            elif self.num_stop_signals > 1:
                self._terminate(time.monotonic() - TERM_GRACE_S)  # SIGKILL follows without delay
            else:
                self._send_all(signal=signals.for_ranks(number))

    def _abort(self, failure: str) -> None:
        """End a launch that failed before any rank has started."""
        self.launch_failure = self.launch_failure or failure
        self.terminated_at = self.released_at = time.monotonic()
        self._send_all(bye=True)

    def _terminate(self, now: float) -> None:
        self.terminated_at = now
        self._send_all(signal=int(signal.SIGTERM))

    def _check_times(self, now: float) -> None:
        if not self.started and not self.launch_failure:
            self._check_start(now)
        self.rank_output.printer.check()
        if self.failed_at is None:  # else a traceback may be a consequence of it
            self.rank_output.release_survived(now)
        for state in self.states:
            waited_for = state.channel is not None and not state.has_ended
            if waited_for and now - state.received_at > control.SILENCE_LIMIT_S:
                self._record_loss(state, f"silent for {control.SILENCE_LIMIT_S:g} s: its host is down or cut off")
        limits = ((self.failed_at, FAIL_GRACE_S), (self.stop_requested_at, self.timeouts.stop_s))
        if self.terminated_at is None and any(_passed(since, limit, now) for since, limit in limits):
            self._terminate(now)
        if _passed(self.terminated_at, TERM_GRACE_S, now):
            self._send_all(signal=int(signal.SIGKILL))
        if now - self.sent_at > control.ALIVE_EVERY_S:
            self.sent_at = now
            self._send_all(alive=True)

    def _check_start(self, now: float) -> None:
        absent = ", ".join(str(state) for state in self.states if state.channel is None)
        if now - self.began_at > self.timeouts.start_s:
            self._abort(f"rank(s) {absent} did not start within {self.timeouts.start_s:g} s")
        elif (code := self.launcher.exit_code()) is not None:
            self._abort(f"rank(s) {absent} never started; {self.plan.launcher} ended with code {code}")

    # The end

    def _report(self) -> int:
        """Print and keep what ended the job, and return its exit code."""
        verdict = self._verdict()
        if self.output_dir is not None:
            (self.output_dir / VERDICT_FILE).write_text(json.dumps(asdict(verdict)) + "\n", encoding="utf-8")
        signals.unwatch()  # only a reader may still be waited for, and a signal is to end that
        self.rank_output.print_held(stopped=self._is_stopped())
        if not verdict.headline:
            return verdict.exit_code
        lines = [f"ringtune-launch: {verdict.headline}", *verdict.words]
        if verdict.num_consequences:
            where = f"see {self.output_dir}" if self.output_dir else "--output-dir keeps their output"
            lines.append(f"{verdict.num_consequences} other rank(s) failed after it ({where})")
        if self.launcher.output and (self.launch_failure or verdict.exit_code):
            lines.append(f"output of {self.plan.launcher}:")
            lines += [f"  {line}" for line in self.launcher.output[-KEPT_LINES:]]
        self.rank_output.printer.print("\n".join(lines), sys.stderr)
        return verdict.exit_code

    def _verdict(self) -> Verdict:
        if self.launch_failure:
            return Verdict(self.launch_exit_code, self.launch_failure)
        if self._is_stopped():
            return Verdict(128 + self.stop_signal, f"stopped by {signal.Signals(self.stop_signal).name}")
        return judge([state.ending for state in self.states], self.rank_output.stalled)

    def _is_stopped(self) -> bool:
        """Return whether ranks ended by the signal that asked the job to stop."""
        number = signals.for_ranks(self.stop_signal)
        codes = {-number, 128 + number}
        return self.num_stop_signals > 0 and any(state.ending.exit_code in codes for state in self.states)


def _passed(since: float | None, seconds: float, now: float) -> bool:
    """Return whether so much time has passed since something happened, if it has."""
    return since is not None and now - since > seconds
