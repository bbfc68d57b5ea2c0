"""Horovod's timeline in the form and on the clock of torch's trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

PROCESS = 2**31 - 1  # the process under which a trace shows Horovod: no system gives out this number
Event = dict[str, Any]
"""One event of the format that Chrome's trace viewer and Perfetto read."""


def spans(text: str) -> list[Event]:
    """Return the events of Horovod's timeline, their times in microseconds since 1970. **Pure.**

    Horovod (0.28.1, timeline.cc) shows each tensor as a process, counts from its own start, which it notes in the first
    event, and marks beginnings and ends. Here a tensor is a thread of the process `PROCESS`, and each span is one
    event. What began before the recording, or ended after it, is left out.
    """
    found = json.loads(text) if text.strip() else []
    names: dict[int, str] = {}
    began: dict[int, list[Event]] = {}
    start, result = 0, []
    for event in found:
        tensor, args = event.get("pid", 0), event.get("args", {})
        if event["ph"] == "M":
            start = args.get("start_time_since_epoch_in_micros", start)
            names |= {tensor: args["name"]} if "name" in args else {}
        elif event["ph"] == "B":
            began.setdefault(tensor, []).append(event)
        elif event["ph"] == "E" and began.get(tensor):
            first = began[tensor].pop()
            duration = event["ts"] - first["ts"]
            result.append(_event(first["name"], start + first["ts"], tensor, ph="X", dur=duration, args=args))
        elif event["ph"] == "X":  # of no length: the name is the number of a rank that has this tensor
            result.append(_event(f"rank {event['name']} is ready", start + event["ts"], tensor, ph="i", s="t"))
    return [*_named("thread_name", names), *result]


def _event(name: str, ts: int, tensor: int, **others: Any) -> Event:
    return {"name": name, "cat": "horovod", "ts": ts, "pid": PROCESS, "tid": tensor, **others}


def _named(what: str, names: Mapping[int, str]) -> Iterator[Event]:
    for number, name in names.items():
        yield {"ph": "M", "name": what, "pid": PROCESS, "tid": number, "args": {"name": name}}


def merge(trace: Mapping[str, Any], horovod: list[Event], process: int, name: str, owner: str) -> dict[str, Any]:
    """Return torch's trace of one rank with Horovod's events on its clock. **Pure.**

    trace: as `torch.profiler` exports it. process: that of the rank. name: what it is called. owner: of Horovod's
    events, likewise.
    """
    base = trace.get("baseTimeNanoseconds", 0)  # torch's times are microseconds since then
    own = [each for each in trace["traceEvents"] if not (each["ph"] == "M" and each["name"] == "process_name")]
    shifted = [{**each, "ts": (each["ts"] * 1000 - base) / 1000} if "ts" in each else each for each in horovod]
    titles: list[Event] = []
    for number, (pid, title) in enumerate([(process, name), (PROCESS, owner)]):
        titles += [
            {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": title}},
            {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": number}},
        ]
    return {**trace, "traceEvents": [*own, *shifted, *titles]}
