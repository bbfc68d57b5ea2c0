"""Remember that a stop was requested; what to do about it is decided where all ranks can agree."""

from __future__ import annotations

import signal
from types import FrameType

from ringtune.train.contract import STOP_SIGNALS


class StopFlag:
    """A flag that the contract's signals set.

    Not a threading.Event: its lock is not reentrant, and a signal may arrive while the main thread holds it.
    """

    def __init__(self) -> None:
        self.requested = False

    def listen(self, *, terminal: bool = False) -> None:
        """Catch the signals from now on. A second signal changes nothing: it must not interrupt a save.

        terminal: take Ctrl-C, too; the second ends the process at once, which loses no checkpoint. Where there is a
        launcher, what becomes of Ctrl-C is the launcher's to say.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._asked)
        if terminal:
            signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.requested = True

    def is_set(self) -> bool:
        """Return whether this rank knows of a request to stop."""
        return self.requested

    def set(self) -> None:
        """Set the flag, for a request that another rank got."""
        self.requested = True

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
