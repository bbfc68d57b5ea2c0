"""Signals as bytes on a socket, for a loop over events, and what a hang-up is to a job."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable


def watch(numbers: Iterable[int]) -> tuple[socket.socket, socket.socket]:
    """Turn signals into bytes on a socket; return it and its other end, which is to be kept.

    A hang-up that this process was started to ignore stays ignored: with nohup, a job outlives its terminal. Others are
    watched all the same: a batch step of ringtune-slurm starts the launcher with SIGUSR1 ignored until it listens.
    """
    wakeup, sender = socket.socketpair()
    wakeup.setblocking(False)
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return wakeup, sender


def unwatch() -> None:
    """Let requests to end do so again by themselves, but for a hang-up that is ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def for_ranks(number: int) -> int:
    """Return the signal by which ranks hear of one: of a hang-up, by which programs end at once, SIGTERM. **Pure.**"""
    return signal.SIGTERM if number == signal.SIGHUP else number
