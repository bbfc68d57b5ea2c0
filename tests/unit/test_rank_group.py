"""A rank's process group is signalled only while the rank is not reaped: then its number may be another group's."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from ringtune.launch import rank, signals

ENDED = os.WEXITED | os.WNOWAIT


class Launcher:
    """What a supervisor sends to the launcher."""

    def __init__(self) -> None:
        self.connection = socket.socket()
        self.connection.bind(("127.0.0.1", 0))
        self.fileno = self.connection.fileno
        self.sent: list[dict[str, object]] = []

    def send(self, **message: object) -> None:
        self.sent.append(message)


@pytest.fixture
def keeper(monkeypatch):
    """Return a supervisor of a rank that sleeps, and the signals it sends, each checked to reach its own rank."""
    signalled: list[int] = []

    def killpg(group: int, number: int) -> None:
        assert os.waitid(os.P_PID, group, ENDED | os.WNOHANG) is None or number == signal.SIGKILL
        signalled.append(number)
        os.kill(-group, number)

    monkeypatch.setattr(signals, "watch", lambda _: socket.socketpair())
    monkeypatch.setattr(rank.os, "killpg", killpg)
    monkeypatch.setattr(rank, "die_with_parent", None)
    keeper = rank.Keeper(rank.RankPlacement(0, 1, 0, 1), ["sleep", "60"], Launcher(), "token")
    keeper._start({}, {}, bound=False)
    yield keeper, signalled
    keeper.process.kill()
    keeper.process.wait()
    for each in (keeper.process.stdout, keeper.process.stderr, keeper.wakeup, keeper.wakeup_sender):
        each.close()
    keeper.selector.close()
    keeper.channel.connection.close()


def test_a_rank_that_has_ended_gets_no_signal(keeper):
    keeper, signalled = keeper
    keeper._check_rank()
    assert signalled == [] and not keeper.exit_sent
    keeper._signal(signal.SIGTERM)
    os.waitid(os.P_PID, keeper.process.pid, ENDED)
    keeper._check_rank()
    assert keeper.channel.sent[-1] == {"exit": -signal.SIGTERM}
    keeper._signal(signal.SIGKILL)
    keeper._end_rank()
    assert signalled == [signal.SIGTERM, signal.SIGKILL]  # the latter to what the rank has left running


def test_a_rank_that_ends_since_the_launcher_is_gone_is_not_reaped_before_its_group_is_killed(keeper):
    keeper, signalled = keeper
    keeper._end_rank()
    assert signalled == [signal.SIGTERM, signal.SIGKILL]


def test_a_rank_of_another_user_that_has_ended_is_told(keeper, monkeypatch):
    """As sudo makes it: its group is not ours to signal."""
    keeper, signalled = keeper
    keeper._signal(signal.SIGKILL)
    os.waitid(os.P_PID, keeper.process.pid, ENDED)

    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(rank.os, "killpg", refuse)
        keeper._check_rank()
    assert keeper.channel.sent[-1] == {"exit": -signal.SIGKILL} and signalled == [signal.SIGKILL]
