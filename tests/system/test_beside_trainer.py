"""What ringtune learns of tags lies beside what transformers' Trainer learns: ``benchmarks/beside_trainer.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import run_command

pytestmark = [pytest.mark.system, pytest.mark.long]
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "beside_trainer.py"


def test_one_seed_of_tags_is_learnt_as_well_as_by_trainer():
    done = run_command([sys.executable, str(PROGRAM), "--kind", "token_classification", "--seeds", "1"], limit_s=500)
    assert done.returncode == 0, done.output
    means = {
        line.split()[2].rstrip(":"): float(line.split("mean ")[1].split(",")[0])
        for line in done.output.splitlines()
        if "; mean " in line
    }
    assert set(means) == {"ringtune", "Trainer"}
    assert abs(means["ringtune"] - means["Trainer"]) < 0.05 and min(means.values()) > 0.5, done.output
