"""Runs that train an adapter: at any number of ranks, after kills, from folder to folder, and beside peft itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import choosing
import numpy as np
import pytest
import questions
import tagged
from conftest import digests, predict, records
from ringtune.train.predict import predict as predicted

pytestmark = pytest.mark.parallel
LORA = {
    "lora_r": 4,
    "lora_dropout": 0.2,
    "lora_target_modules": "query,value,dense",
    "save_merged_model": "true",
    "mode": "exact",
    "learning_rate": 1e-2,
}
TEXTS = ["good great fine film", "bad dull awful plot", "the cast was not very warm", "odd"]


@pytest.fixture(scope="module")
def base(workshop, make_once) -> Path:
    """A random model whose answers to rows differ: an adapter of the usual one learns nothing in a few steps."""

    def write(folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        shutil.copytree(workshop.model, folder, dirs_exist_ok=True)
        torch.manual_seed(1)
        config = AutoConfig.from_pretrained(folder, initializer_range=0.2)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)

    return make_once("base", write)


@pytest.fixture(scope="module")
def lora(base) -> dict[str, object]:
    return {**LORA, "model_name_or_path": base}


def probabilities(folder: Path | str) -> np.ndarray:
    rows = predicted(str(folder), TEXTS)
    return np.array([[row[name] for name in row if name.startswith("probability_")] for row in rows])


@pytest.mark.long
def test_an_adapter_is_exact_at_two_ranks_and_after_a_kill(workshop, reference, lora, tmp_path):
    whole = reference(1, **lora)
    assert workshop.train(2, tmp_path / "run", kill_at=6, save_steps=2, **lora).returncode != 0
    done = workshop.train(2, tmp_path / "run", save_steps=2, **lora)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 12) == digests(whole, 12)
    assert records(tmp_path / "run", "train") == records(whole, "train")
    for name in ("adapter_model.safetensors", "adapter_config.json", "base.json", "merged/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"lora_r": 4, "lora_target_modules": "all-linear", "layerwise_lr_decay": 0.8, "optim": "lamb"},
        {"peft_config": "boft", "dropout": 0.2},
        {"peft_config": "ia3", "freeze": "bert.encoder.layer.0.*"},
    ],
    ids=["lora", "boft", "ia3"],
)
def test_other_adapters_are_exact_at_two_ranks_and_after_a_kill(workshop, reference, tmp_path, settings):
    files = {
        "boft": {"peft_type": "BOFT", "boft_block_size": 4, "boft_dropout": 0.2, "target_modules": ["query", "value"]},
        "ia3": {"peft_type": "IA3"},
    }
    settings = {"mode": "exact", **settings}
    if "peft_config" in settings:
        path = workshop.cache.parent.parent / f"{settings['peft_config']}.json"
        path.write_text(json.dumps(files[settings["peft_config"]]))
        settings["peft_config"] = path
    assert workshop.train(2, tmp_path / "run", kill_at=6, save_steps=2, **settings).returncode != 0
    assert workshop.train(1, tmp_path / "run", save_steps=2, **settings).returncode == 0
    assert digests(tmp_path / "run", 12) == digests(reference(1, **settings), 12)
    assert digests(reference(2, **settings), 12) == digests(reference(1, **settings), 12)


def test_peft_and_transformers_predict_from_the_folders_what_ringtune_does(reference, lora):
    import torch
    from peft import AutoPeftModelForSequenceClassification, PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    run = reference(1, **lora)
    assert {each.name for each in run.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "task.json"}
    assert not (run / "model.safetensors").exists() and not (run / "config.json").exists()
    tokens = AutoTokenizer.from_pretrained(run)(TEXTS, return_tensors="pt", padding=True)
    models = {
        "auto": AutoPeftModelForSequenceClassification.from_pretrained(run),
        "transformers": AutoModelForSequenceClassification.from_pretrained(run),
        "peft": PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(lora["model_name_or_path"]), run / "best"
        ),
        "merged": AutoModelForSequenceClassification.from_pretrained(run / "merged"),
    }
    expected = probabilities(run)
    assert expected.std(axis=0).min() > 0.02  # rows differ
    for name, model in models.items():
        with torch.no_grad():
            found = model.eval()(**tokens).logits.softmax(-1).numpy()
        trained = probabilities(run / "best") if name == "peft" else expected
        np.testing.assert_allclose(found, trained, atol=1e-5)
    np.testing.assert_allclose(probabilities(run / "merged"), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities(run / "checkpoint-12"), expected, atol=0)
    labels = [each["label"] for each in pipeline("text-classification", str(run / "merged"))(TEXTS)]
    assert labels == [each["label"] for each in predicted(str(run), TEXTS)]


@pytest.mark.parametrize("size", [0, pytest.param(2, marks=pytest.mark.long)])
def test_the_command_predicts_from_an_adapter_with_training_s_scores(workshop, reference, lora, tmp_path, size):
    run = reference(1, **lora)
    done = predict(size, run, workshop.dev, tmp_path / "out.jsonl", report=tmp_path / "report.json")
    assert done.returncode == 0, done.output
    scores, evaluation = json.loads((tmp_path / "report.json").read_text())["scores"], records(run, "eval")[-1]
    assert scores["loss"] == evaluation["eval_loss"] and scores["accuracy"] == evaluation["eval_accuracy"]


@pytest.mark.long
def test_the_command_refuses_a_base_that_has_changed_or_is_gone(workshop, tmp_path):
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(workshop.model, tmp_path / "base"))
    settings = {**LORA, "model_name_or_path": base, "max_steps": 4, "save_steps": 2}
    assert workshop.train(0, tmp_path / "run", kill_at=3, **settings).returncode != 0
    weights = load_file(base / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    done = workshop.train(0, tmp_path / "run", **settings)
    assert done.returncode == 2 and f"the base model {base} is not the one" in done.output, done.output
    done = predict(0, tmp_path / "run" / "checkpoint-2", workshop.dev, tmp_path / "out.jsonl")
    assert done.returncode == 2 and f"the base model {base} is not the one" in done.output, done.output
    assert "Traceback" not in done.output
    shutil.rmtree(base)
    done = predict(0, tmp_path / "run" / "checkpoint-2", workshop.dev, tmp_path / "out.jsonl")
    assert done.returncode == 2 and f"its base model is not there: {base}" in done.output, done.output


@pytest.mark.long
def test_a_new_run_goes_on_with_an_adapter_and_two_ranks_are_one(workshop, reference, lora, tmp_path):
    run = reference(1, **lora)
    settings = {"model_name_or_path": run, "mode": "exact", "max_steps": 4}
    one, two = reference(1, **settings), reference(2, **settings)
    assert digests(one, 4) == digests(two, 4)
    assert (one / "adapter_config.json").read_bytes() == (run / "adapter_config.json").read_bytes()
    moved = [np.abs(probabilities(each) - probabilities(run)).max() for each in (one, lora["model_name_or_path"])]
    assert moved[0] < 0.1 < 0.2 < moved[1]  # not from the beginning
    done = workshop.train(0, tmp_path / "run", **settings, lora_r=8)
    assert done.returncode == 2 and "is an adapter, which is trained on as it is" in done.output, done.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("write", "score"),
    [(tagged.write_words, "accuracy"), (questions.write_rows, "f1"), (choosing.write_lists, "accuracy")],
    ids=["tags", "answers", "choices"],
)
def test_other_kinds_train_an_adapter_with_the_bits_of_one_rank_and_predict_with_its_scores(
    workshop, reference, make_once, tmp_path, write, score
):
    def fill(folder: Path) -> None:
        write(folder / "train.jsonl", 121, 1)
        write(folder / "dev.jsonl", 31, 2)

    rows = make_once(f"adapter-{write.__module__}", fill)
    files = {"train_file": rows / "train.jsonl", "validation_file": rows / "dev.jsonl"}
    steps = {"num_shards": 6, "max_steps": 8, "eval_steps": 4, "save_steps": 2}
    settings = {**LORA, **files, **steps, "lora_target_modules": "all-linear"}
    one = reference(1, **settings)
    assert workshop.train(2, tmp_path / "run", kill_at=5, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 8) == digests(one, 8)
    assert records(tmp_path / "run", "eval") == records(one, "eval")
    for folder in (one, one / "merged"):
        output = [tmp_path / f"{folder.name}-{size}.jsonl" for size in (0, 2)]
        for size, path in zip((0, 2), output, strict=True):
            done = predict(size, folder, rows / "dev.jsonl", path, report=path.with_suffix(".json"))
            assert done.returncode == 0, done.output
        assert output[0].read_bytes() == output[1].read_bytes()
        found = json.loads(output[0].with_suffix(".json").read_text())["scores"][score]
        assert found == pytest.approx(records(one, "eval")[-1][f"eval_{score}"], abs=0 if folder == one else 0.02)
