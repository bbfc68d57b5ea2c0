"""A command whose output nobody reads any more ends without a traceback: ``... | head``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TRAIN = ["-m", "ringtune.train.cli", "--dry_run", "true"]
PREDICT = ["-m", "ringtune.train.predict.cli", "--dry_run", "true"]


def without_a_reader(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a standard output whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(write)


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "ringtune.launch.cli", "run", "--dry-run", "-np", "2", "--", "true"],
        ["-m", "ringtune.launch.cli", "run", "-np", "2", "--", "echo", "a line"],
        ["-m", "ringtune.launch.cli", "completion", "bash"],
    ],
    ids=" ".join,
)
def test_the_launcher_ends_as_a_program_does_that_nobody_reads(words):
    done = without_a_reader(*words)
    assert done.returncode == 141 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_script_of_slurms_ends_well(workshop, tmp_path):
    flags = ["--model_name_or_path", str(workshop.model), "--train_file", str(workshop.rows)]
    done = without_a_reader("-m", "ringtune.slurm.cli", "script", "--", *flags, "--output_dir", str(tmp_path / "run"))
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_dry_run_of_a_rank_ends_as_a_program_does_that_nobody_reads(workshop, tmp_path):
    files = ["--train_file", str(workshop.rows), "--output_dir", str(tmp_path / "run")]
    for words in (
        [*TRAIN, "--model_name_or_path", str(workshop.model), *files],
        [
            *PREDICT,
            "--model_name_or_path",
            str(workshop.model),
            "--input",
            str(workshop.rows),
            "--output",
            str(tmp_path / "out.csv"),
        ],
    ):
        done = without_a_reader(*words)
        assert (done.returncode, done.stderr) == (141, ""), words
