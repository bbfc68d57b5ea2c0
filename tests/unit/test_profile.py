"""Which steps are profiled, and Horovod's timeline on the clock of torch's trace."""

from __future__ import annotations

import json

import pytest
import torch
from ringtune.train import interval, timeline
from ringtune.train.contract import UsageError
from ringtune.train.span import span

META = {"name": "process_name", "ph": "M"}


def test_an_interval_of_steps_has_both_its_ends():
    assert list(interval.steps("3:5", "x")) == [3, 4, 5]
    assert list(interval.steps("7:7", "x")) == [7]
    assert list(interval.steps(None, "x")) == []


@pytest.mark.parametrize("text", ["0:3", "5:3", "3", "a:b", "1.5:2", "-1:2", "3:", "", "1:2:3", "185", "१:२", "1:2\n"])
def test_what_is_no_interval_of_steps_is_refused_by_its_flag(text):
    with pytest.raises(UsageError, match=r"^--profile_steps: "):
        interval.steps(text, "--profile_steps")


def test_an_interval_may_end_with_the_run_and_not_behind_it():
    interval.require_within("3:8", "x", 8)
    interval.require_within(None, "x", 8)
    with pytest.raises(UsageError, match="8 steps"):
        interval.require_within("3:9", "x", 8)


def test_spans_of_horovod_are_counted_from_1970_and_named_by_their_tensor():
    events = [
        {**META, "pid": 0, "args": {"start_time_since_epoch_in_micros": 1000}},
        {**META, "pid": 1, "args": {"name": "allreduce.a"}},
        {"ph": "E", "ts": 3, "pid": 1},  # began before the recording
        {"ph": "B", "name": "ALLREDUCE", "ts": 10, "pid": 1},
        {"ph": "B", "name": "MPI_ALLREDUCE", "ts": 12, "pid": 1},
        {"ph": "X", "name": "3", "ts": 13, "pid": 1, "dur": 0},
        {"ph": "E", "ts": 17, "pid": 1},
        {"ph": "E", "ts": 20, "pid": 1, "args": {"shape": "[4]"}},
        {"ph": "B", "name": "ALLREDUCE", "ts": 30, "pid": 1},  # had not ended when the recording did
    ]
    name, *found = timeline.spans(json.dumps(events))
    assert name["tid"] == 1 and name["args"] == {"name": "allreduce.a"}
    assert [(each["name"], each["ts"], each.get("dur")) for each in found] == [
        ("rank 3 is ready", 1013, None),
        ("MPI_ALLREDUCE", 1012, 5),
        ("ALLREDUCE", 1010, 10),
    ]
    assert timeline.spans("") == []


def test_merged_events_are_on_the_clock_of_the_trace():
    trace = {"baseTimeNanoseconds": 2_000_000, "traceEvents": [{**META, "pid": 5, "args": {"name": "python"}}]}
    merged = timeline.merge(trace, [{"ph": "X", "name": "a", "ts": 2500}], 5, "rank 0", "Horovod")
    assert next(each["ts"] for each in merged["traceEvents"] if each["name"] == "a") == 500
    names = [each["args"]["name"] for each in merged["traceEvents"] if each["name"] == "process_name"]
    assert names == ["rank 0", "Horovod"]


def test_a_span_is_recorded_by_a_profiler_and_is_nothing_without_one():
    with span("without"):
        pass
    with torch.profiler.profile() as profiler, span("within"):
        pass
    assert [each.key for each in profiler.key_averages()] == ["within"]
