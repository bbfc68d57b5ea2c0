"""A crash anywhere leaves a whole checkpoint to go on from.

The disk is faked at one place only: the operations of ``ringtune.train.disk`` stop at a chosen one, because no real
crash can be made to hit each of them. What they wrote until then is really there.
"""

from __future__ import annotations

import errno
import os

import pytest
import torch
from ringtune.train import checkpoint, disk, publish
from ringtune.train.average import Average
from ringtune.train.contract import UsageError
from ringtune.train.saver import Saver
from ringtune.train.tensor_file import TensorFile


def state(step: int) -> checkpoint.RunState:
    return checkpoint.RunState(step, 9, 0, 12 * step, 2, checkpoint.Best(), {}, {"seed": 1}, "d", "t", {})


def snapshot(step: int) -> checkpoint.Snapshot:
    return checkpoint.Snapshot(
        state(step),
        TensorFile({"format": "pt"}).fill({"w": torch.full((4,), float(step))}),
        TensorFile().fill({"w/exp_avg": torch.full((4,), float(step))}),
        {"config.json": b"{}"},
    )


class Crash(BaseException):
    """The machine stops here."""


class CrashingDisk:
    """Lets a number of writes, flushes and renames through, tears the next one and stops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        self.left, self.real_write = allowed, disk.write_bytes
        self.real_fsync, self.real_rename = disk.os.fsync, disk.os.rename
        monkeypatch.setattr(disk, "write_bytes", self.write)
        monkeypatch.setattr(disk.os, "fsync", self.guarded(self.real_fsync))
        monkeypatch.setattr(disk.os, "rename", self.guarded(self.real_rename))

    def spend(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1

    def guarded(self, real):
        def operation(*arguments):
            self.spend()
            return real(*arguments)

        return operation

    def write(self, path, content):
        try:
            self.spend()
        except Crash:
            path.write_bytes(content[: len(content) // 2])
            raise
        self.real_write(path, content)


def count_operations(tmp_path, monkeypatch, work) -> int:
    """Return how many operations the work takes."""
    with monkeypatch.context() as patch:
        counting = CrashingDisk(patch, 10_000)
        work(tmp_path / "count")
        return 10_000 - counting.left


def test_a_crash_at_every_write_flush_and_rename_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    def two_saves(folder):
        checkpoint.write_checkpoint(folder, snapshot(1))
        path = checkpoint.write_checkpoint(folder, snapshot(2))
        checkpoint.point_best(folder, path)
        checkpoint.rotate(folder, 1, [path])

    operations = count_operations(tmp_path, monkeypatch, two_saves)
    first = count_operations(tmp_path / "one", monkeypatch, lambda f: checkpoint.write_checkpoint(f, snapshot(1)))
    assert operations > 2 * first > 20
    for allowed in range(operations):
        folder = tmp_path / str(allowed)
        with monkeypatch.context() as patch:
            CrashingDisk(patch, allowed)
            with pytest.raises(Crash):
                two_saves(folder)
        found, skipped = checkpoint.find_latest(folder)
        if found is None:  # the first one was not published yet: nothing bears a checkpoint's name
            assert allowed < first and checkpoint.list_checkpoints(folder) == []
        else:
            loaded = checkpoint.load_checkpoint(found)
            assert loaded.model["w"].tolist() == [float(loaded.state.step)] * 4
        assert all(each.reason for each in skipped)
        publish.remove_left_behind(folder)
        assert not list(folder.glob(".*"))
        two_saves(folder)  # and the run goes on
        assert checkpoint.find_latest(folder) == (folder / "checkpoint-2", [])


def test_a_name_appears_only_when_all_behind_it_is_on_the_device(tmp_path, monkeypatch):
    """A crash of the machine, unlike one of the process, takes what was written and not flushed (fsync(2))."""
    acts: list[tuple[str, str]] = []
    real_fsync, real_rename = disk.os.fsync, disk.os.rename

    def fsync(descriptor):
        acts.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def rename(source, target):
        acts.append(("rename", str(source)))
        real_rename(source, target)

    monkeypatch.setattr(disk.os, "fsync", fsync)
    monkeypatch.setattr(disk.os, "rename", rename)

    def flushed_before_and_after() -> tuple[set[str], set[str]]:
        place = next(number for number, (act, _) in enumerate(acts) if act == "rename")
        return {path for _, path in acts[:place]}, {path for _, path in acts[place + 1 :]}

    found = checkpoint.write_checkpoint(tmp_path, snapshot(1))
    temporary = next(path for act, path in acts if act == "rename")
    before, after = flushed_before_and_after()
    assert before == {temporary, *(f"{temporary}/{each.name}" for each in found.iterdir())} and len(before) == 6
    assert str(tmp_path) in after
    acts.clear()
    disk.replace_file(tmp_path / "config.yaml", b"seed: 1")
    before, after = flushed_before_and_after()
    assert before == {next(path for act, path in acts if act == "rename")} and after == {str(tmp_path)}


def test_a_checkpoint_that_reads_back_otherwise_than_written_is_an_error_and_nothing_is_rotated(tmp_path, monkeypatch):
    real, rotated = checkpoint.write_checkpoint, []

    def write(folder, what):
        path = real(folder, what)
        spoil_by_a_flipped_bit(path)
        return path

    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    monkeypatch.setattr(checkpoint, "rotate", lambda *arguments: rotated.append(arguments))
    saver = make_saver(tmp_path)
    saver.save(state(1))
    with pytest.raises(OSError, match="what was just written cannot be read back: optimizer.safetensors"):
        saver.settle()
    assert not rotated
    saver.settle()  # reported once


class OneRank:
    """A job of one rank, which trains a model of one weight."""

    rank, reducer, average = 0, None, Average()

    def __init__(self):
        self.model, self.comm = torch.nn.Linear(1, 1, bias=False), self
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def on_rank_0(self, work, stop, name):
        return work()


def make_saver(folder) -> Saver:
    return Saver(folder, OneRank(), {"config.json": b"{}"}, keep=1)


def spoil_by_truncation(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def spoil_by_a_flipped_bit(path):
    content = bytearray((path / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(content)


def spoil_by_a_missing_file(path):
    (path / "state.json").unlink()


def spoil_by_a_missing_manifest(path):
    (path / "manifest.json").unlink()


def spoil_the_manifest(path):
    (path / "manifest.json").write_text("[1")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_by_truncation, "model.safetensors has"),
        (spoil_by_a_flipped_bit, "optimizer.safetensors is not what was written"),
        (spoil_by_a_missing_file, "state.json is missing"),
        (spoil_by_a_missing_manifest, "it has no manifest.json"),
        (spoil_the_manifest, "manifest.json cannot be read"),
    ],
)
def test_a_spoilt_checkpoint_is_named_and_skipped(tmp_path, spoil, reason):
    checkpoint.write_checkpoint(tmp_path, snapshot(1))
    spoil(checkpoint.write_checkpoint(tmp_path, snapshot(2)))
    found, skipped = checkpoint.find_latest(tmp_path)
    assert found == tmp_path / "checkpoint-1"
    assert [each.path.name for each in skipped] == ["checkpoint-2"]
    assert reason in skipped[0].reason
    with pytest.raises(UsageError, match="not a whole checkpoint.*beside it: checkpoint-1"):
        checkpoint.load_checkpoint(tmp_path / "checkpoint-2")


def test_a_start_removes_the_checkpoints_that_a_killed_save_had_still_to_remove(tmp_path):
    for step in (2, 4, 6):
        checkpoint.write_checkpoint(tmp_path, snapshot(step))
    (tmp_path / "set-aside-1").mkdir()
    left = tmp_path / "set-aside-1" / ".metrics.jsonl.12.tmp"
    left.touch()
    make_saver(tmp_path).open(6, 2)  # keeps one, and the best
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path)] == [6, 2]
    assert left.parent.exists() and not left.exists()


def test_what_killed_writers_left_is_named_and_removed_and_nothing_else(tmp_path):
    (tmp_path / ".checkpoint-3.host.1.2.0123abcd.tmp").mkdir()
    assert checkpoint.find_latest(tmp_path)[1][0].reason == "its writing never ended"
    (tmp_path / f".{checkpoint.MODEL_FILE}.1.tmp").write_bytes(b"half of it")
    (tmp_path / ".best.0123abcd.tmp").symlink_to("checkpoint-3")
    (tmp_path / ".notes.tmp").write_text("not ours")
    publish.remove_left_behind(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [".notes.tmp"]


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    paths = [checkpoint.write_checkpoint(tmp_path, snapshot(step)) for step in range(1, 6)]
    checkpoint.rotate(tmp_path, 2, [paths[0]])
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path)] == [5, 4, 1]


def test_a_full_disk_is_said_in_one_line_and_costs_nothing(tmp_path, monkeypatch):
    checkpoint.write_checkpoint(tmp_path, snapshot(1))

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_bytes", full)
    with pytest.raises(UsageError, match=r"checkpoint-2: the disk is full: \d+ bytes needed"):
        checkpoint.write_checkpoint(tmp_path, snapshot(2))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_failed_save_in_the_thread_is_raised_not_lost(tmp_path):
    (tmp_path / "file").write_text("")
    saver = make_saver(tmp_path / "file")
    saver.save(state(1))
    with pytest.raises(OSError):
        saver.save(state(2))  # the next call


def test_a_state_of_another_format_is_refused_by_name(tmp_path):
    content = state(1).to_json()
    assert checkpoint.RunState.from_json(content, "c") == state(1)
    for other, found in (({**content, "format": 3}, "3"), ({"step": 1}, "1"), ([], "None")):
        with pytest.raises(UsageError, match=f"c: its state has format {found}; format 2, of this version of ringtune"):
            checkpoint.RunState.from_json(other, "c")
    del content["best"]
    with pytest.raises(UsageError, match="c: its state has no best"):
        checkpoint.RunState.from_json(content, "c")
