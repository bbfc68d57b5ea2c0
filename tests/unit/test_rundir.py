"""The run directory is one run's, and nothing foreign in it is touched."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ringtune.train import final, glue, opening, publish, rundir, series
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError, as_usage, holds_run, read_records
from ringtune.train.metrics import MetricsFile


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds thesis.tex and no config.yaml"):
        holds_run(tmp_path)


@pytest.mark.parametrize(("name", "words"), [("a", "it is not a folder"), ("a/b/c", "a is not a folder")])
def test_a_file_where_a_folder_is_to_be_is_refused_before_anything_runs(tmp_path, monkeypatch, capfd, name, words):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("")
    with pytest.raises(UsageError, match=f"--output_dir {name}: {words}"):
        holds_run(Path(name))
    flags = ["--model_name_or_path", "m", "--train_file", "t.csv", "--output_dir", name]
    for main, own in ((series.main, ["--sweep", "seed=1..2"]), (glue.main, ["--tasks", "rte"])):
        for more in ([], ["--dry_run"], *([["--table"]] if main is glue.main else [["--search=optuna", "--trials=1"]])):
            assert main([*own, *more, *flags]) == 2
            out, err = capfd.readouterr()
            assert not out and f"--output_dir {name}: {words}" in err and err.count("\n") == 1


def test_clearing_removes_what_is_ours_and_nothing_else(tmp_path):
    for name in ("config.yaml", "metrics.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoint-1").mkdir()
    rundir.clear(tmp_path)
    # The settings are replaced by those of the new run, not removed: until then the folder is still a run's.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.yaml", "notes.txt"]


@pytest.mark.parametrize("finished", [True, False])
def test_clearing_removes_tokenizer_files_of_whatever_family_and_none_that_was_put_there_since(tmp_path, finished):
    ours = {name: name.encode() for name in ("vocab.txt", "bpe.codes", "added_tokens.json", "tokenizer.json")}
    (tmp_path / "config.yaml").write_text("seed: 1")
    (tmp_path / "checkpoint-1").mkdir()
    source = tmp_path if finished else tmp_path / "checkpoint-1"  # killed while it wrote its final model
    if finished:
        final.write(tmp_path, memoryview(b"w"), ours, {"step": 1})
    else:
        for name, content in ours.items():
            (tmp_path / name).write_bytes(content)
        entries = {name: publish.entry_of(content) for name, content in ours.items()}
        entries["../notes"] = publish.entry_of(b"")
        (source / "manifest.json").write_bytes(publish.manifest_bytes(entries))
    (tmp_path / "predict_results.txt").write_text("")
    (tmp_path / "bpe.codes").write_text("of the user")
    (tmp_path / "merges.txt").write_text("of the user")
    (tmp_path.parent / "notes").write_text("")
    with pytest.raises(UsageError, match="--test_file .*predict_results.txt: --overwrite_output_dir removes it"):
        rundir.refuse_to_clear(tmp_path, {}, {"--test_file": str(tmp_path / "predict_results.txt")})
    with pytest.raises(UsageError, match="--train_file .*vocab.txt: --overwrite_output_dir removes it"):
        rundir.refuse_to_clear(tmp_path, {}, {"--train_file": str(tmp_path / "vocab.txt")})
    rundir.clear(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bpe.codes", "config.yaml", "merges.txt"]
    assert (tmp_path.parent / "notes").exists()


@pytest.mark.parametrize("damage", ["[]", "{", '{"vocab.txt": 1}', '{"vocab.txt": {"bytes": 1}}'])
def test_clearing_takes_a_damaged_manifest(tmp_path, damage):
    for name in ("config.yaml", "vocab.txt", "model.safetensors"):
        (tmp_path / name).write_text("x")
    (tmp_path / "manifest.json").write_text(damage)
    rundir.clear(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.yaml", "vocab.txt"]


def test_a_run_that_goes_on_removes_the_predictions_of_the_model_before(tmp_path):
    found = tmp_path / "checkpoint-1"
    found.mkdir()
    for name in ("config.yaml", "tokenizer.json", "predict_results.txt"):
        (tmp_path / name).write_text("")
    config = TrainConfig(model_name_or_path="m", train_file="t.csv")
    opening.sign(tmp_path, config, SimpleNamespace(checkpoint=found, best=None, step=1, damaged=()), print)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint-1", "config.yaml", "tokenizer.json"]


def test_clearing_is_refused_where_it_would_remove_what_the_new_run_reads(tmp_path, monkeypatch):
    run, inside = tmp_path / "run", ["checkpoint-1", "merged", "mine"]
    for name in inside:
        (run / name).mkdir(parents=True)
    for name in ("metrics.jsonl", "train.csv"):
        (run / name).write_text("")
    (tmp_path / "link").symlink_to("run")
    (run / "best").symlink_to("checkpoint-1")
    monkeypatch.chdir(tmp_path)
    for model in ("run", "link", "run/../run", "run/checkpoint-1", "run/best", "link/merged"):
        with pytest.raises(UsageError, match=f"--init_from {model}: --overwrite_output_dir removes it from"):
            rundir.refuse_to_clear(run, {"--model_name_or_path": "hub/name", "--init_from": model}, {})
    for rows in ("run/metrics.jsonl", "run/train.csv,link/metrics.jsonl"):
        with pytest.raises(UsageError, match="--train_file .*metrics.jsonl: --overwrite_output_dir removes it from"):
            rundir.refuse_to_clear(run, {}, {"--train_file": rows, "--test_file": None})
    monkeypatch.chdir(run)
    rundir.refuse_to_clear(run, {"--init_from": "mine", "--replay": None}, {"--train_file": "train.csv"})


def test_a_second_run_in_a_folder_is_refused_naming_the_first_which_may_die_by_sigkill(tmp_path):
    code = (
        f"from ringtune.train.rundir import *; lock = RunLock(Path({str(tmp_path)!r})); lock.acquire(); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"a run is alive in it: host .*, pid {holder.pid}"):
            rundir.RunLock(tmp_path).acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    lock = rundir.RunLock(tmp_path)
    lock.acquire()
    lock.release()


def test_metrics_are_cut_back_to_the_checkpoint_without_the_evaluation_after_it(tmp_path):
    log = MetricsFile(tmp_path / "metrics.jsonl")
    for event, step in (("train", 1), ("train", 2), ("eval", 2), ("train", 3)):
        log.write({"event": event, "step": step})
    with log.path.open("a") as stream:
        stream.write('{"event": "tra\n3\n[]\n')  # torn by a crash, and what is no record
    with log.path.open("ab") as stream:
        stream.write(b"\xff\xfe")
    log.truncate_after(2)
    assert [(each["event"], each["step"]) for each in read_records(log.path)] == [("train", 1), ("train", 2)]


def test_only_records_are_read_from_the_metrics_whatever_else_a_line_holds(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = b'{"event": "train", "step": 1}\n'
    path.write_bytes(good + b'{"event": "train", "step": null}\n{"step": 2}\n[]\n\xff\n"\x0b"\n\n' + good)
    assert [each["step"] for each in read_records(path)] == [1, 1]


def test_metrics_that_are_not_what_was_written_are_reported_and_every_whole_line_stays(tmp_path):
    log = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write({"event": "train", "step": step, "loss": 0.5})
    expected = log.checksum.entry()
    content = log.path.read_bytes()
    assert MetricsFile(log.path).truncate_after(3, expected) == ""
    log.path.write_bytes(content.replace(b'"step": 2,', b'"step":"2,'))
    assert "1 damaged line(s) left out" in MetricsFile(log.path).truncate_after(3, expected)
    assert [each["step"] for each in read_records(log.path)] == [1, 3]
    log.path.write_bytes(content.replace(b"0.5", b"0.7", 1))
    again = MetricsFile(log.path)
    assert again.truncate_after(3, expected).endswith("up to step 3: lines are missing or changed")
    again.write({"event": "train", "step": 4})
    assert again.checksum.entry() == publish.entry_of(log.path.read_bytes())
    log.path.unlink()
    assert "lines are missing" in MetricsFile(log.path).truncate_after(3, expected)


def test_only_what_nobody_writes_any_more_is_removed_from_a_folder_of_many(tmp_path):
    me, host = os.getpid(), socket.gethostname()
    gone = subprocess.Popen(["true"])
    gone.wait()
    ours = os.stat("/proc/self/ns/pid").st_ino
    for process, name in (
        (f"{me}-{ours}", host),
        (f"1-{ours}", host),
        (f"{gone.pid}-{ours}", host),
        (f"{gone.pid}-{ours + 1}", host),  # another container, which has the host's network
        (gone.pid, host),  # an earlier version, in whatever container
        (f"{2**80}-{ours}", host),
        (f"1-{ours}", "elsewhere"),
        (f"2-{ours}", "elsewhere"),
    ):
        (tmp_path / f".key.{name}.{process}.7.0123abcd.tmp").mkdir()
    (tmp_path / "key").mkdir()
    os.utime(tmp_path / f".key.elsewhere.2-{ours}.7.0123abcd.tmp", (0, 0))
    everything = {each.name for each in tmp_path.iterdir()}
    publish.remove_abandoned(tmp_path)
    removed = {f".key.{host}.{gone.pid}-{ours}.7.0123abcd.tmp", f".key.elsewhere.2-{ours}.7.0123abcd.tmp"}
    assert everything - {each.name for each in tmp_path.iterdir()} == removed


def test_what_is_published_meanwhile_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "left_behind", lambda folder: [folder / ".key.elsewhere.1.7.0123abcd.tmp"])
    publish.remove_abandoned(tmp_path)


def test_a_killed_writer_of_this_container_is_recognised_by_what_it_left(tmp_path, monkeypatch):
    code = f"import os; from pathlib import Path; from ringtune.train import publish; target = Path({str(tmp_path)!r})"
    kill = "publish.new_folder(target / 'key').__enter__(); publish.temporary_file(target, 'f').touch(); os._exit(9)"
    subprocess.run([sys.executable, "-c", f"{code}; {kill}"], check=False)
    left = {each.name for each in tmp_path.iterdir()}
    assert len(left) == 2
    monkeypatch.setattr(publish, "_namespace", lambda: "")  # a system that has none
    publish.remove_abandoned(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == left
    monkeypatch.undo()
    publish.remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_the_user_can_fix_is_a_usage_error_and_any_other_error_stays_itself(tmp_path):
    with pytest.raises(OSError) as caught:
        tmp_path.write_text("")
    assert str(as_usage(caught.value)) == (
        f"{tmp_path}: Is a directory; free space, and permission to write there; run again when that is fixed"
    )
    with pytest.raises(OSError) as caught:
        (tmp_path / ("x" * 300)).exists()
    assert "File name too long" in str(as_usage(caught.value)) and isinstance(as_usage(caught.value), UsageError)
    for other in (
        OSError(errno.EIO, "Input/output error"),
        ConnectionResetError(),
        ValueError("x"),
        UsageError("a", "b"),
    ):
        assert as_usage(other) is other
