"""What a run finds in its folder is understood, kept, set aside with a word, or refused with one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import filelock
import pytest
from conftest import Done, Workshop, curve, digests, predict, records
from ringtune.train import checkpoint, opening, rundir
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError, holds_run, read_records
from ringtune.train.predict.config import settings_of_run
from short_run import SHORT

STEPS = {**SHORT, "save_steps": 1, "eval_steps": 1, "save_total_limit": 9, "report_to": "none"}


def train(workshop: Workshop, run: Path, **changes: object) -> Done:
    """Train without a launcher and return what it printed; it must end well."""
    done = workshop.train(0, run, **{**STEPS, **changes})
    assert done.returncode == 0, done.output
    return done


def finished_run(workshop: Workshop, make_once) -> Path:
    """Return the folder of a finished run of four steps, made once."""
    return make_once("short-run", lambda folder: train(workshop, folder / "run")) / "run"


@pytest.fixture
def run(workshop, make_once, tmp_path: Path) -> Path:
    """Return a finished run of four steps that a test may change."""
    shutil.copytree(finished_run(workshop, make_once), tmp_path / "run", symlinks=True)
    return tmp_path / "run"


# Going on


@pytest.mark.system
def test_going_back_to_an_earlier_step_sets_later_ones_aside_with_their_metrics(workshop, run):
    done = train(workshop, run, resume_from_checkpoint=run / "checkpoint-2", max_steps=3)
    assert f"{run}: checkpoint-3, checkpoint-4 set aside in set-aside-1" in done.output
    aside = run / "set-aside-1"
    assert sorted(each.name for each in aside.iterdir()) == ["checkpoint-3", "checkpoint-4", "metrics.jsonl"]
    assert [each["step"] for each in read_records(aside / "metrics.jsonl") if each["event"] == "train"] == [1, 2, 3, 4]
    assert checkpoint.verify(aside / "checkpoint-4") is None
    assert [each["step"] for each in records(run, "train")] == [1, 2, 3]
    assert (run / "best").resolve().parent == run
    done = train(workshop, run, max_steps=3)
    assert "finished already at step 3" in done.output, done.output


@pytest.mark.system
def test_a_run_that_begins_at_another_ones_checkpoint_brings_its_best_model_along(workshop, run, tmp_path):
    best = checkpoint.load_state(run / "checkpoint-4").best.step
    assert best in (1, 2, 3)
    words = {"resume_from_checkpoint": run / "checkpoint-4", "load_best_model_at_end": "true", "max_steps": 5}
    train(workshop, tmp_path / "other", **words)
    facts = json.loads((tmp_path / "other" / "finished.json").read_text())["best"]
    kept = tmp_path / "other" / f"checkpoint-{facts['step']}"
    assert (tmp_path / "other" / "best").resolve() == kept and checkpoint.verify(kept) is None
    assert [each["step"] for each in records(tmp_path / "other", "train")] == [1, 2, 3, 4, 5]
    shutil.rmtree(run / f"checkpoint-{best}")
    done = train(workshop, tmp_path / "third", **words)
    assert f"checkpoint-{best}: it is missing): the best is chosen from the evaluations to come" in done.output


@pytest.mark.system
def test_the_best_model_is_known_from_the_state_whatever_becomes_of_its_link(workshop, run):
    best = checkpoint.load_state(run / "checkpoint-4").best.step
    (run / "best").unlink()
    words = {"load_best_model_at_end": "true", "max_steps": 6, "save_total_limit": 1}
    train(workshop, run, **words)
    facts = json.loads((run / "finished.json").read_text())["best"]
    assert (run / "best").resolve().name == f"checkpoint-{facts['step']}"
    assert facts["step"] != best or (run / f"checkpoint-{best}").exists()


@pytest.mark.system
def test_more_steps_may_keep_the_schedule_of_the_shorter_run(workshop, run):
    done = train(workshop, run, max_steps=6, keep_schedule="true")
    assert "the learning rates stay those planned for 4 steps; after them the last one" in done.output, done.output
    rates = [each["learning_rate"] for each in records(run, "train")]
    assert rates[4:] == [rates[3]] * 2 and len(rates) == 6
    done = train(workshop, run, max_steps=8, keep_schedule="true")
    rates = [each["learning_rate"] for each in records(run, "train")]
    assert rates[4:] == [rates[3]] * 4
    done = train(workshop, run, max_steps=10)
    assert "the schedule has 10 steps instead of 4" in done.output and "--keep_schedule true keeps it" in done.output


@pytest.mark.system
def test_a_run_whose_settings_were_deleted_goes_on_and_one_whose_final_model_was_is_written_again(workshop, run):
    before = digests(run, 4), curve(run), (run / "model.safetensors").read_bytes()
    (run / "config.yaml").unlink()
    done = train(workshop, run)
    assert "config.yaml is missing; it is written again" in done.output and (run / "config.yaml").exists()
    (run / "model.safetensors").write_bytes(b"\0" * 100)
    done = train(workshop, run)
    assert "model.safetensors has 100 of " in done.output
    assert (digests(run, 4), curve(run), (run / "model.safetensors").read_bytes()) == before
    assert "finished already" in train(workshop, run).output


@pytest.mark.system
def test_a_final_model_that_is_damaged_without_any_checkpoint_is_refused_and_kept(workshop, run):
    for each in run.glob("checkpoint-*"):
        shutil.rmtree(each)
    assert "finished already" in train(workshop, run).output
    (run / "model.safetensors").write_bytes(b"\0" * 100)
    done = workshop.train(0, run, **STEPS)
    assert done.returncode == 2 and "it has no checkpoint to write it from again" in done.output, done.output
    assert (run / "model.safetensors").read_bytes() == b"\0" * 100


@pytest.mark.system
def test_a_model_of_a_run_that_has_not_finished_is_not_predicted_with(workshop, run, tmp_path):
    for name in ("finished.json", "manifest.json"):
        (run / name).unlink()
    done = predict(0, run, workshop.dev, tmp_path / "out.csv")
    assert done.returncode == 2 and "the run in it has not finished; " in done.output, done.output
    done = predict(0, run / "checkpoint-4", workshop.dev, tmp_path / "out.csv")
    assert done.returncode == 0, done.output
    for name in ("config.yaml", "task.json"):  # copied without the files of its run
        (run / name).unlink()
    done = predict(0, run, workshop.dev, tmp_path / "other.csv")
    assert done.returncode == 0, done.output


# Signing


def test_whatever_a_killed_start_left_is_no_foreign_folder(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.yaml.4711.tmp").write_text("half")
    (tmp_path / ".checkpoint-3.host.1.2.0123abcd.old").mkdir()
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoint-3").mkdir()  # of some other program
    with pytest.raises(UsageError, match="it holds checkpoint-3 and no config.yaml"):
        holds_run(tmp_path)
    (tmp_path / "checkpoint-3" / "manifest.json").write_text("{}")
    assert holds_run(tmp_path)


def test_what_is_in_the_folder_is_looked_at_only_under_the_lock(run, tmp_path):
    """Another start finished the run after this one had looked and before it got the lock."""
    empty = tmp_path / "late"

    class Late(rundir.RunLock):
        def acquire(self) -> None:
            shutil.copytree(run, empty, symlinks=True)
            super().acquire()

    settings = json.loads(json.dumps(dict(checkpoint.load_state(run / "checkpoint-4").config)))
    config = TrainConfig(**{**settings, "output_dir": str(empty)})
    lock = Late(empty)
    try:
        found = opening.open_run(config, 1, lock, print, dry_run=False)
    finally:
        lock.release()
    assert found.finished_step == 4 and found.checkpoint == empty / "checkpoint-4"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotImplementedError("FileSystem does not appear to support flock"), "does not appear to support flock"),
        (OSError(errno.ENOLCK, "No locks available"), "No locks available"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    ],
)
def test_a_file_system_without_locks_is_named_with_the_folder(tmp_path, monkeypatch, error, words):
    """Faked, because no file system without flock is at hand."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(UsageError, match=words) as caught:
        rundir.RunLock(tmp_path / "run").acquire()
    assert caught.value.where == f"--output_dir {tmp_path / 'run'}"


def test_a_file_system_without_symbolic_links_has_no_best_link_and_nothing_fails(tmp_path, monkeypatch):
    """Faked as vfat answers: symlink(2) gives EPERM."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    assert checkpoint.can_link(tmp_path)
    monkeypatch.setattr(os, "symlink", fail)
    assert not checkpoint.can_link(tmp_path)
    checkpoint.point_best(tmp_path, tmp_path / "checkpoint-3")
    assert list(tmp_path.iterdir()) == []


# Predictions


def test_a_size_that_is_none_in_the_settings_of_a_models_run_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("max_seq_length: s2\n")
    with pytest.raises(UsageError, match="max_seq_length of its run is 's2'; a whole number"):
        settings_of_run(str(tmp_path))


@pytest.mark.system
def test_a_prediction_that_is_run_again_has_finished_already(workshop, run, tmp_path):
    output = tmp_path / "out.csv"
    assert predict(0, run, workshop.dev, output).returncode == 0
    written = output.read_bytes()
    done = predict(0, run, workshop.dev, output)
    assert done.returncode == 0 and f"{output}: finished already" in done.output, done.output
    done = predict(0, run, workshop.dev, output, top_k=1)
    assert done.returncode == 2 and "--top_k: 1" in done.output, done.output
    output.write_bytes(written + b"mine\n")
    done = predict(0, run, workshop.dev, output)
    assert done.returncode == 2 and "it is not what was predicted" in done.output, done.output
    assert output.read_bytes() == written + b"mine\n"
    done = predict(0, run, workshop.dev, output, overwrite_output="true")
    assert done.returncode == 0 and output.read_bytes() == written
