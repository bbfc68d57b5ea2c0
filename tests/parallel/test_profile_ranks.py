"""``--profile_steps`` on real ranks: what the traces show, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Workshop, curve, digests
from ringtune.train.timeline import PROCESS
from usage import usage_error

pytestmark = pytest.mark.parallel
PARTS = ("batch", "forward", "backward", "reduce wait", "clip", "exchange", "update", "log")


def trace(run: Path, rank: int) -> list[dict]:
    return json.loads((run / "profile" / f"rank-{rank}.json").read_text())["traceEvents"]


def spans(events: list[dict], name: str) -> list[tuple[float, float]]:
    """Return begin and end of the spans of a name, microseconds."""
    found = [each for each in events if each["name"] == name and each["ph"] == "X"]
    return sorted((each["ts"], each["ts"] + each["dur"]) for each in found)


def test_a_trace_of_each_rank_shows_the_step_and_horovod_on_one_clock_and_changes_no_bit(workshop, reference, tmp_path):
    plain = reference(2)
    done = workshop.train(2, tmp_path / "run", profile_steps="8:9")
    assert done.returncode == 0, done.output
    assert curve(tmp_path / "run") == curve(plain) and digests(tmp_path / "run", 12) == digests(plain, 12)
    assert f"profile of steps 8 to 9: {tmp_path / 'run' / 'profile'}/rank-0.json to rank-1.json; open" in done.output
    assert "USDT" not in done.output
    assert sorted(each.name for each in (tmp_path / "run" / "profile").iterdir()) == ["rank-0.json", "rank-1.json"]
    for rank in range(2):
        events = trace(tmp_path / "run", rank)
        steps = [each["name"] for each in events if each["name"].startswith("step ")]
        assert steps == ["step 8", "step 9"]
        for name in PARTS:
            assert len(spans(events, name)) == 2, name
        assert len(spans(events, "save")) == len(spans(events, "evaluate")) == 1  # the epoch ends with step 9
        assert any(each.get("cat") == "cpu_op" for each in events)
        sums = [span for each in ("MPI_ALLREDUCE", "GLOO_ALLREDUCE") for span in spans(events, each)]
        horovod = [each for each in events if each.get("cat") == "horovod"]
        assert sums and all(each["pid"] == PROCESS for each in horovod)
        for backward, wait in zip(spans(events, "backward"), spans(events, "reduce wait"), strict=True):
            # Sums of a step begin when backward has made gradients and end before they have been waited for.
            assert any(backward[0] < begin and end < wait[1] + 2000 for begin, end in sums), (backward, wait, sums)


@pytest.mark.long
def test_a_run_that_is_stopped_leaves_the_steps_it_has_and_goes_on_without_those_done(workshop: Workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run", fault=("stop", "5", "0"), profile_steps="4:9")
    assert done.returncode == 75 and "profile of steps 4 to 6" in done.output, done.output
    assert [each["name"] for each in trace(tmp_path / "run", 0) if each["name"].startswith("step ")][-1] == "step 6"
    done = workshop.train(1, tmp_path / "run", profile_steps="4:6")
    assert done.returncode == 0 and "after step 6: nothing is left to profile" in done.output, done.output


@pytest.mark.long
def test_an_interval_behind_the_run_is_refused_before_anything_is_written(workshop: Workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run", profile_steps="12:13")
    assert "13 ends behind the run, which has 12 steps" in usage_error(done)
    assert not (tmp_path / "run" / "config.yaml").exists()
