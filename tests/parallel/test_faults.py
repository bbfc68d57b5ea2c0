"""A fault on one rank ends the job on all, and says whose it was."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.parallel


def test_a_failing_rank_takes_the_job_down_with_its_traceback_once(workshop, tmp_path):
    done = workshop.train(3, tmp_path / "run", fault=("raise", "4", "1"))
    assert done.returncode == 1, done.output
    assert "rank 1 of 3 (host " in done.output
    assert done.output.count("RuntimeError: planted failure") == 1
    assert done.output.count("Traceback") == 1


def test_a_loss_that_is_not_finite_stops_all_ranks_naming_step_rank_and_rows(workshop, tmp_path):
    done = workshop.train(2, tmp_path / "run", fault=("nan", "17"), save_steps=1, dropout=0.0)
    assert done.returncode == 1, done.output
    line = next(line for line in done.output.splitlines() if "not finite" in line)
    assert "step " in line and "rank " in line and "17" in line and "no parameter was changed" in line
    assert "Traceback" not in done.output
