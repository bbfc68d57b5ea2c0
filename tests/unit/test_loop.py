"""What is being saved when a run fails is on disk before its error goes on: the process ends by ``os._exit``."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ringtune.train.contract import UsageError
from ringtune.train.loop import Loop
from ringtune.train.saver import Saver
from ringtune.train.step import NotFinite


class SlowSaver(Saver):
    """Rank 0's saver or another rank's, of one save that ends long after the step that fails."""

    def __init__(self, events, *, rank=0, error=None):
        self.events, self.error, self.pending = events, error, None
        self.comm = SimpleNamespace(rank=rank, on_rank_0=self.on_rank_0)

    def on_rank_0(self, work, stop, name):
        self.events.append(name)
        work() if self.comm.rank == 0 else None

    def save(self, state):
        if self.comm.rank == 0:
            self.pending = SimpleNamespace(result=self.write)

    def write(self, limit_s):
        assert limit_s is None or limit_s < 10  # no other rank hears of the failure until then
        if self.error:
            raise self.error
        self.events.append("written")


def fail(error, *, rank=0, save_error=None):
    """Return what happens, in order, when the step after a save fails."""
    events: list[str] = []
    loop = object.__new__(Loop)
    loop.resumed, loop.pruner, loop.step, loop.total_steps, loop.peak_memory = None, None, 1, 9, 0
    loop.config = SimpleNamespace(early_stopping_patience=None)
    loop.profiler, loop.stop, loop._state = Mock(), Mock(), Mock()
    loop.journal = SimpleNamespace(report=events.append, close=lambda: events.append("left"))
    loop.saver = SlowSaver(events, rank=rank, error=save_error)
    loop.saver.save(None)
    loop.plan = lambda step: Mock()
    loop._upcoming = lambda: None
    loop.stepper = SimpleNamespace(take=Mock(side_effect=error))
    with pytest.raises(type(error)) as caught:
        loop.run()
    assert caught.value is error
    return events


def test_a_loss_that_is_not_finite_waits_on_all_ranks_for_what_is_being_saved():
    assert fail(NotFinite("step 2")) == ["saver/settle", "written", "left"]
    assert fail(NotFinite("step 2"), rank=1) == ["saver/settle", "left"]


@pytest.mark.parametrize("error", [RuntimeError("x"), UsageError("--metrics m.py:cost", "it failed")])
def test_any_other_error_of_rank_0_waits_without_the_others(error):
    assert fail(error) == ["written", "left"]
    assert fail(error, rank=1) == ["left"]


@pytest.mark.parametrize("error", [NotFinite("step 2"), RuntimeError("x")])
def test_a_save_that_fails_as_well_is_told_and_hides_no_error(error):
    *_, told, left = fail(error, save_error=OSError("No space left"))
    assert (told, left) == ("the checkpoint that was being saved is lost: No space left", "left")


def test_a_save_that_takes_too_long_is_told():
    *_, told, left = fail(RuntimeError("x"), save_error=TimeoutError())
    assert (told, left) == ("the checkpoint that was being saved is lost: it was not on disk after 5 s", "left")
