"""Hypothesis by number of examples: few of them in the daily tests, all of them in the long ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings


def run_examples(number: int, *strategies: Any) -> Callable[[Callable[..., None]], None]:
    """Run a check with that many examples."""

    def run(check: Callable[..., None]) -> None:
        settings(max_examples=number, suppress_health_check=list(HealthCheck))(given(*strategies)(check))()

    return run


def few_or(number: int) -> pytest.MarkDecorator:
    """Return a parametrisation: a twentieth of the examples, and all of them in the long tests."""
    return pytest.mark.parametrize("number", [number // 20, pytest.param(number, marks=pytest.mark.long)])
