"""Weights are read from the safe file, from a pickle only where that is allowed; else what is there is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ranks
from ringtune.train import convert, disk, model
from ringtune.train.columns import Columns
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.predict import predict
from ringtune.train.task.classification import Classification
from safetensors.torch import load_file

TASK = Classification(Columns(("text",), "label"), ("down", "up"))
SAFE, PICKLE = "model.safetensors", "pytorch_model.bin"


@pytest.fixture
def folder(workshop, tmp_path) -> Path:
    """Return a model's folder whose weights are a pickle."""
    copy = Path(shutil.copytree(workshop.model, tmp_path / "model"))
    torch.save(load_file(copy / SAFE), copy / PICKLE)
    (copy / SAFE).unlink()
    return copy


def train_with(folder, **settings) -> torch.nn.Module:
    return model.load_model(TrainConfig(str(folder), **settings), TASK)


def predict_with(folder, **settings) -> torch.nn.Module:
    return model.load_trained(str(folder), **settings)[0]


both = pytest.mark.parametrize("load", [train_with, predict_with])


def same_weights(network, expected) -> bool:
    found = network.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], each) for name, each in expected.items())


@both
def test_a_pickle_is_refused_with_both_ways_out_or_read_as_tensors(folder, load, workshop):
    with pytest.raises(UsageError, match=rf"a pickle.*ringtune-train convert {folder}; or --allow_pickle true"):
        load(folder)
    expected = load(workshop.model).state_dict()
    assert same_weights(load(folder, allow_pickle=True), expected)
    convert.convert(folder)
    assert same_weights(load(folder), expected)


@both
def test_of_a_folder_with_both_the_pickle_is_not_looked_at(folder, load, workshop):
    shutil.copy(workshop.model / SAFE, folder / SAFE)
    (folder / PICKLE).write_bytes(b"torn")
    load(folder)
    load(folder, allow_pickle=True)


class Program:
    def __reduce__(self):
        return os.mkdir, ("started",)


@both
def test_a_program_in_a_pickle_never_runs(folder, load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"bert.x": Program()}, folder / PICKLE)
    for work in (lambda: load(folder, allow_pickle=True), lambda: convert.convert(folder)):
        with pytest.raises(UsageError, match=r"its pickle holds more than tensors \(posix.mkdir\)"):
            work()
    assert not Path("started").exists() and not (folder / SAFE).exists()


def test_a_pickle_in_shards_with_tied_weights_is_converted_whole(folder, workshop):
    whole = torch.load(folder / PICKLE)
    tied = whole["bert.embeddings.word_embeddings.weight"]
    whole["cls.predictions.decoder.weight"] = tied
    names = sorted(whole)
    shards = {f"pytorch_model-0000{n}-of-00002.bin": names[n - 1 :: 2] for n in (1, 2)}
    for file, chosen in shards.items():
        torch.save({name: whole[name] for name in chosen}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, chosen in shards.items() for name in chosen}}
    (folder / PICKLE).unlink()
    (folder / f"{PICKLE}.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="ringtune-train convert"):
        predict_with(folder)
    assert same_weights(predict_with(folder, allow_pickle=True), predict_with(workshop.model).state_dict())
    convert.convert(folder)
    found = load_file(folder / SAFE)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], each) for name, each in whole.items())
    assert same_weights(predict_with(folder), predict_with(workshop.model).state_dict())


def test_tied_weights_of_one_file_are_converted_under_both_names(folder):
    whole = torch.load(folder / PICKLE)
    whole["tied"] = whole["bert.embeddings.word_embeddings.weight"]
    torch.save(whole, folder / PICKLE)
    convert.convert(folder)
    found = load_file(folder / SAFE)
    assert torch.equal(found["tied"], found["bert.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"state_dict": {"a": torch.ones(1)}}, "it holds more than weights by their names"),
        ([torch.ones(1)], "it holds more than weights by their names"),
        (b"torn", "pytorch_model.bin: it cannot be read: .*; a pickle of tensors alone"),
    ],
)
def test_a_pickle_that_is_no_models_is_refused(folder, content, wrong):
    if isinstance(content, bytes):
        (folder / PICKLE).write_bytes(content)
    else:
        torch.save(content, folder / PICKLE)
    with pytest.raises(UsageError, match=wrong):
        convert.convert(folder)
    assert not (folder / SAFE).exists()


@pytest.mark.parametrize("name", ["../secret.bin", "gone.bin"])
def test_an_index_that_names_what_is_not_in_the_folder_is_refused(folder, name):
    (folder / PICKLE).rename(folder.parent / "secret.bin")
    (folder / f"{PICKLE}.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UsageError, match="not in the folder; all of its shards"):
        convert.convert(folder)


def test_the_command_converts_once_and_refuses_in_a_line(folder):
    first = ranks(0, "-m", "ringtune.train.cli", "convert", str(folder))
    assert (first.returncode, first.output) == (0, f"{folder / SAFE}: written\n")
    again = ranks(0, "-m", "ringtune.train.cli", "convert", str(folder))
    assert again.returncode == 2 and again.output.startswith(f"ringtune-train convert: {folder}: it has {SAFE} already")
    assert again.output.count("\n") == 1


def test_a_conversion_that_is_killed_leaves_no_file_and_the_next_one_clears_up(folder):
    code = (
        "import os, signal, sys, pathlib\nfrom ringtune.train import convert, disk\n"
        "disk.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert.convert(pathlib.Path(sys.argv[1]))"
    )
    before = {each.name for each in folder.iterdir()}
    done = subprocess.run([sys.executable, "-c", code, str(folder)])
    assert done.returncode == -signal.SIGKILL
    left = {each.name for each in folder.iterdir()} - before
    assert len(left) == 1 and left.pop().endswith(".tmp")
    convert.convert(folder)
    assert {each.name for each in folder.iterdir()} == before | {SAFE}


def test_a_full_disk_leaves_no_file(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(disk, "fsync", full)
    before = sorted(folder.iterdir())
    assert convert.main([str(folder)]) == 2
    assert "No space left on device; free space" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


@both
@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        (["tf_model.h5"], "it has no model.safetensors; it has weights for TensorFlow only.*save_pretrained"),
        (["flax_model.msgpack", "model.onnx"], "it has weights for Flax, ONNX only"),
        ([], "it has no model.safetensors; it has config.json"),
    ],
)
def test_a_folder_with_other_weights_is_refused_with_what_is_there(folder, load, files, wrong):
    (folder / PICKLE).unlink()
    for name in files:
        (folder / name).write_bytes(b"")
    with pytest.raises(UsageError, match=wrong) as caught:
        load(folder, allow_pickle=True)
    assert len(str(caught.value)) <= 500


def test_a_prediction_takes_a_pickle_where_it_is_allowed(folder):
    assert next(predict(str(folder), ["good"], allow_pickle=True))["label"].startswith("LABEL_")
    with pytest.raises(UsageError, match="a pickle"):
        predict(str(folder), ["good"])
