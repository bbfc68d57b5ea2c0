"""The average of the parameters: what it is of, that a checkpoint's model is it, and that its scores are its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import predict, records
from ringtune.train import config
from ringtune.train.average import Average
from ringtune.train.contract import UsageError
from safetensors.torch import load_file

pytestmark = pytest.mark.parallel
STEPS = 6
SETTINGS = {"ema_decay": 0.5, "mode": "exact", "num_shards": 2, "max_steps": STEPS, "save_steps": 1, "eval_steps": 3}
SETTINGS["save_total_limit"] = STEPS


@pytest.fixture(scope="module")
def averaged(reference) -> Path:
    return reference(1, **SETTINGS, load_best_model_at_end="true", metric_for_best_model="loss")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """Return the parameters that training goes on from."""
    found = load_file(folder / "optimizer.safetensors")
    return {name.removesuffix("/trained"): each for name, each in found.items() if name.endswith("/trained")}


def test_a_checkpoints_model_is_the_average_of_all_steps_up_to_it(averaged, workshop):
    average = load_file(averaged / "checkpoint-1" / "model.safetensors")
    for step in range(2, STEPS + 1):
        folder = averaged / f"checkpoint-{step}"
        saved, now, decay = load_file(folder / "model.safetensors"), trained(folder), min(0.5, (1 + step) / (10 + step))
        assert set(now) == set(saved)
        for name, each in now.items():
            average[name] = decay * average[name] + (1 - decay) * each
            torch.testing.assert_close(saved[name], average[name])
    assert any((saved[name] != now[name]).any() for name in now)
    word, first = "bert.embeddings.word_embeddings.weight", load_file(workshop.model / "model.safetensors")
    average = load_file(averaged / "checkpoint-1" / "model.safetensors")[word]
    torch.testing.assert_close(average, first[word] * 2 / 11 + trained(averaged / "checkpoint-1")[word] * 9 / 11)


def test_scores_are_of_the_average_and_the_best_one_is_left(averaged, workshop, tmp_path):
    evaluations = records(averaged, "eval")
    assert [each["step"] for each in evaluations] == [3, 6]
    best = min(evaluations, key=lambda each: each["eval_loss"])
    assert (averaged / "model.safetensors").read_bytes() == (
        averaged / f"checkpoint-{best['step']}" / "model.safetensors"
    ).read_bytes()
    report = tmp_path / "report.json"
    done = predict(0, averaged, workshop.dev, tmp_path / "out.csv", report=report)
    assert done.returncode == 0, done.output
    assert json.loads(report.read_text())["scores"]["loss"] == best["eval_loss"]


@pytest.mark.long
def test_the_last_average_is_the_final_model_and_predicts_the_test_rows(workshop, tmp_path):
    run = tmp_path / "run"
    settings = {**SETTINGS, "test_file": workshop.dev, "do_predict": "true"}
    assert workshop.train(2, run, **settings).returncode == 0
    assert (run / "model.safetensors").read_bytes() == (run / f"checkpoint-{STEPS}" / "model.safetensors").read_bytes()
    assert predict(0, run, workshop.dev, tmp_path / "out.jsonl").returncode == 0
    found = [line.split("\t")[1] for line in (run / "predict_results.txt").read_text().splitlines()[1:]]
    assert found == [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    done = workshop.train(2, run, **{**settings, "max_steps": STEPS + 2})
    assert done.returncode == 0 and "going on from" in done.output, done.output


@pytest.mark.long
def test_an_adapter_is_averaged_too(workshop, tmp_path):
    done = workshop.train(2, tmp_path / "run", **SETTINGS, lora_r=2)
    assert done.returncode == 0, done.output
    last = tmp_path / "run" / f"checkpoint-{STEPS}"
    assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == (
        last / "adapter_model.safetensors"
    ).read_bytes()
    assert len(trained(last)) == len(load_file(last / "adapter_model.safetensors"))


def test_a_model_holds_its_averages_only_within(capsys):
    parameters = {"a": torch.nn.Parameter(torch.tensor([1.0, 2.0]))}
    average = Average(parameters, 0.9)
    with torch.no_grad():
        parameters["a"].add_(1)
    average.update(1000)
    with average.in_model():
        torch.testing.assert_close(parameters["a"].detach(), torch.tensor([1.1, 2.1]))
    assert parameters["a"].tolist() == [2.0, 3.0]
    kept = {name: each.clone() for name, each in average.trained_tensors().items()}
    assert average.restore({**kept, "a/exp_avg": kept["a/trained"]}, "here").keys() == {"a/exp_avg"}
    with pytest.raises(UsageError, match="here: it has no trained a beside its average"):
        average.restore({}, "here")
    for value in ("0", "1", "-0.5"):
        with pytest.raises(UsageError, match=r"--ema_decay: .* is out of range"):
            config.parse(["--model_name_or_path", "m", "--train_file", "t.csv", "--ema_decay", value])
