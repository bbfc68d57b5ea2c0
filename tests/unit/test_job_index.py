"""The links from job ids to run directories: a convenience, which no job may die of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ringtune.slurm import index, record


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RINGTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run_of(folder) -> Path:
    record.Record(folder).add(record.SUBMITTED)
    return folder


def test_jobs_are_found_by_their_ids_and_the_latest_of_an_id_counts(cache, tmp_path):
    first, second = (run_of(tmp_path / name) for name in "ab")
    index.remember({"7_0": first, "7_1": second})
    assert index.find("7_1") == [second]
    index.remember({"7_1": first})
    assert index.find("7_1") == [first] and sorted(os.listdir(cache / "slurm")) == ["7_0", "7_1"]


def test_a_cache_that_cannot_be_written_is_reported_in_one_line(cache, tmp_path, capsys):
    cache.write_text("a file where the folder is to be")
    index.remember({str(number): tmp_path for number in range(900)})
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "ringtune-slurm: 0, 1, 2: not kept by job id" in told.err, told.err
    assert "Not a directory" in told.err and told.out == ""


def test_a_disk_that_is_full_and_a_missing_home_are_no_harm(cache, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        index.remember({"7": tmp_path})
    assert "No space left on device" in capsys.readouterr().err and os.listdir(cache / "slurm") == []

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RINGTUNE_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    index.remember({"7": tmp_path})
    assert "Could not determine home directory" in capsys.readouterr().err


def test_two_processes_may_link_one_job_at_once(cache, tmp_path, monkeypatch, capsys):
    run, rename = run_of(tmp_path / "run"), Path.rename

    def meanwhile(link, target):
        monkeypatch.setattr(Path, "rename", rename)
        index.remember({"7": run})
        assert index.latest() == [run]
        return rename(link, target)

    monkeypatch.setattr(Path, "rename", meanwhile)
    index.remember({"7": run})
    assert capsys.readouterr().err == "" and os.listdir(cache / "slurm") == ["7"]
