"""Of an error that all ranks have, rank 0 tells before another one's exit makes the launcher end it.

Communicator and clock are fakes: whether the launcher is the faster one is chance, and cannot be tested with it.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ringtune.train import comm, hub, imports, rank, stop
from ringtune.train.contract import EXIT_FAILED, EXIT_USAGE, UsageError
from ringtune.train.step import NotFinite


def outcome(monkeypatch, capsys, error, *, number, reports=None, fails_to_start=False):
    """Return exit code, the seconds waited before leaving, and what a rank of two says of an error."""
    waited: list[float] = []

    def fake(**_):
        if fails_to_start:
            raise error
        reports_error = number == 0 if reports is None else reports
        return SimpleNamespace(rank=number, size=2, reports_error=reports_error, close=lambda: None)

    def work(*_, **__):
        raise error

    monkeypatch.setattr(comm, "Comm", fake)
    monkeypatch.setattr(stop.StopFlag, "listen", lambda *_, **__: None)
    monkeypatch.setattr(hub, "stay_offline_if_unreachable", lambda *_: None)
    monkeypatch.setattr(imports, "leave_out_unused", lambda: None)
    monkeypatch.setattr(rank, "promised_rank", lambda: number)
    monkeypatch.setattr(rank.time, "sleep", waited.append)
    code = rank._work("ringtune-train", SimpleNamespace(), lambda: work, dry_run=False)
    return code, sum(waited), capsys.readouterr().err


@pytest.mark.parametrize("fails_to_start", [False, True])
@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("--x", "y", legal="z"), EXIT_USAGE), (NotFinite("y"), EXIT_FAILED)]
)
def test_the_rank_that_does_not_tell_leaves_last(error, code, fails_to_start, monkeypatch, capsys):
    told = outcome(monkeypatch, capsys, error, number=0, fails_to_start=fails_to_start)
    assert told == (code, 0, f"ringtune-train: {error}\n")
    found, waited, words = outcome(monkeypatch, capsys, error, number=1, fails_to_start=fails_to_start)
    assert found == code and 5 < waited < rank.REPORT_GRACE_S
    assert words.startswith("rank 1 of ") and words.endswith(f": ringtune-train: {error}\n")  # rank 0 has not failed


def test_a_rank_that_the_launcher_ends_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(stop.StopFlag, "is_set", lambda _: True)
    _, _, words = outcome(monkeypatch, capsys, UsageError("--x", "y", legal="z"), number=1)
    assert words == ""


def test_the_rank_that_failed_first_of_several_tells_at_once(monkeypatch, capsys):
    error = UsageError("--x", "y", legal="z")
    assert outcome(monkeypatch, capsys, error, number=1, reports=True) == (EXIT_USAGE, 0, f"ringtune-train: {error}\n")


def test_a_rank_that_heard_of_anothers_error_waits_and_is_silent(monkeypatch, capsys):
    assert outcome(monkeypatch, capsys, comm.PeerFailed(2), number=1) == (2, rank.REPORT_GRACE_S, "")


@pytest.mark.parametrize("number", [0, 1])
def test_wrong_arguments_are_told_by_rank_0_and_by_a_rank_that_alone_has_them(number, monkeypatch, capsys):
    error, waited = UsageError("--config", "it is not there", legal="a file"), []

    def parse():
        raise error

    monkeypatch.setattr(rank, "promised_rank", lambda: number)
    monkeypatch.setattr(rank.time, "sleep", waited.append)
    with pytest.raises(SystemExit) as left:
        rank.main("ringtune-train", parse, lambda: parse)
    assert left.value.code == EXIT_USAGE
    assert waited == [rank.REPORT_GRACE_S] * number and str(error) in capsys.readouterr().err
