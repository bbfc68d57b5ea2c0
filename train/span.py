"""A named span of the step in the trace of a profile."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def span(name: str) -> AbstractContextManager[object]:
    """Return a context that the profiler, if it records, shows under a name; else one that does nothing."""
    enabled = torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    return torch.profiler.record_function(name) if enabled else nullcontext()
