"""Fixtures of the tests that need several hosts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts import Cluster, missing


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Return a function that starts hosts; they are gone when the test ends. ``tmp_path`` is the folder that they share."""
    if missing() and not os.environ.get("CI"):
        pytest.skip(f"needs {', '.join(missing())}")
    with ExitStack() as stack:
        yield lambda *names, **options: stack.enter_context(Cluster(*names, shared=tmp_path, **options))
