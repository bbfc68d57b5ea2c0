"""Masked tokens: N ranks compute what one does, with the masks that one draws; what is filled in is the same, too."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import stories
import torch
from conftest import curve, digests, predict, records
from ringtune.train.predict import predict as predictions

pytestmark = pytest.mark.parallel
SCORES = {"eval_loss", "eval_perplexity", "eval_accuracy"}


@pytest.fixture(scope="module")
def texts(make_once) -> Path:
    def write(folder: Path) -> None:
        stories.write(folder / "train.txt", 400, 1)
        stories.write(folder / "dev.txt", 80, 2)

    return make_once("texts", write)


@pytest.fixture(scope="module")
def settings(texts) -> dict[str, object]:
    """Return the flags of a short run in exact mode, of two epochs and more, with dropout."""
    files = {"task": "masked_lm", "train_file": texts / "train.txt", "validation_file": texts / "dev.txt"}
    more = {"max_train_samples": 150, "max_steps": 8, "eval_steps": 4, "save_steps": 2}
    return {**files, **more, "mode": "exact", "num_shards": 6, "whole_word_mask": "true"}


def test_parameters_and_every_score_are_those_of_one_rank_also_after_a_kill(workshop, reference, settings, tmp_path):
    """The first evaluation is of two ranks, the second of three; the kill is in the second epoch."""
    one = reference(1, **settings)
    found = records(one, "eval")
    assert len(found) == 2 and set(found[0]) >= SCORES
    assert found[0]["eval_perplexity"] == pytest.approx(math.exp(found[0]["eval_loss"]))
    assert workshop.train(2, tmp_path / "run", kill_at=7, **settings).returncode != 0
    done = workshop.train(3, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 8) == digests(one, 8) and records(tmp_path / "run", "eval") == found
    assert "text: column text; no label" in done.output


@pytest.mark.long
def test_fast_mode_computes_what_plain_pytorch_does(workshop, reference, settings, tmp_path):
    """Two ranks, each with shards of its own, and one process of transformers' model and torch's AdamW."""
    flags = {"mode": "fast", "num_shards": None, "dropout": 0.0, "eval_steps": None, "max_steps": 5, "warmup_ratio": 0}
    flags |= {"lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0, "whole_word_mask": None}
    two, one = (reference(size, **{**settings, **flags}) for size in (2, 1))
    assert curve(two) == pytest.approx(curve(one), rel=1e-4)
    losses, tensors = plain_steps(workshop, settings, 5)
    assert [each["loss"] for each in records(two, "train")] == pytest.approx(losses, rel=1e-4)
    from safetensors.torch import load_file

    mine = load_file(two / "model.safetensors")
    assert set(mine) <= set(tensors)
    for name, each in mine.items():
        torch.testing.assert_close(each, tensors[name], rtol=2e-3, atol=2e-4, msg=lambda text, name=name: name + text)
    torch.testing.assert_close(
        tensors["bert.embeddings.word_embeddings.weight"], tensors["cls.predictions.decoder.weight"]
    )


def plain_steps(workshop, settings, num_steps: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return losses and weights of some steps of one process, padded batches and AdamW of all parameters."""
    from ringtune.train.config import parse
    from ringtune.train.order import DataOrder, derive_seed
    from ringtune.train.table import open_table
    from ringtune.train.task import read
    from transformers import AutoModelForMaskedLM

    config, _ = parse(workshop.arguments(Path("unused"), **{**settings, "whole_word_mask": None}), print)
    folders = [each.parent for each in (workshop.cache / "tokens").glob("*/train.mask_unit")]
    found = {folder: read(folder)[0] for folder in folders}
    folder = next(
        each for each, task in found.items() if not task.masking.whole_words and not task.masking.line_by_line
    )
    task, features = found[folder], open_table(folder, "train")
    torch.manual_seed(config.seed)
    model = AutoModelForMaskedLM.from_pretrained(workshop.model).eval()
    updates = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    order = DataOrder(config.seed, features.num_features, 12)
    losses = []
    for step in range(num_steps):
        batch = task.collate(features, order.rows(step), derive_seed("collate", config.seed, step + 1))
        names = ("input_ids", "attention_mask", "token_type_ids")
        labels = torch.full_like(batch["input_ids"], -100).flatten()
        labels[batch["masked_places"][: len(batch["labels"])]] = batch["labels"]
        loss = model(**{name: batch[name] for name in names}, labels=labels.view_as(batch["input_ids"])).loss
        updates.zero_grad()
        loss.backward()
        updates.step()
        losses.append(loss.item())
    return losses, model.state_dict()


@pytest.fixture(scope="module")
def learned(reference, settings) -> Path:
    """Return a run of two ranks that has learnt which words go together."""
    more = {"mode": "fast", "num_shards": None, "max_steps": 90, "learning_rate": 1e-2, "dropout": 0.0}
    more |= {"line_by_line": "true", "global_batch_size": 32, "max_train_samples": None}
    return reference(2, **{**settings, **more, "eval_steps": 90, "save_steps": None, "logging_steps": 60})


def test_two_ranks_learn_which_words_go_together(reference, settings, learned):
    """Better than a model of a few steps, and than any guess that does not look at the other words."""
    untrained = records(reference(1, **settings), "eval")[0]["eval_perplexity"]
    perplexity = records(learned, "eval")[-1]["eval_perplexity"]
    assert perplexity < 0.6 * math.exp(stories.unigram_entropy(80, 2)) and perplexity < untrained / 5
    config = json.loads((learned / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]


@pytest.fixture(scope="module")
def masked_rows(make_once) -> Path:
    """Rows with a mask or two, one in ten longer than 32 tokens, one in eleven without."""

    def write(folder: Path) -> None:
        with (folder / "rows.jsonl").open("w") as stream:
            for number, text in enumerate(stories.texts(600, 5)):
                words = text.split()
                for place in (1, -1)[: 1 + number % 2]:
                    words[place] = words[place] if number % 11 == 0 else "[MASK]"
                stream.write(json.dumps({"id": number, "text": " ".join(words)}) + "\n")

    return make_once("masked", write)


@pytest.fixture(scope="module")
def filled(learned, masked_rows) -> list[dict]:
    """Return what one process fills in."""
    rows = masked_rows / "rows.jsonl"
    return list(predictions(learned, rows, keep_columns="id,text", batch_tokens=512))


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_filled_in_is_the_same_at_any_number_of_ranks_and_after_a_kill(
    learned, masked_rows, filled, tmp_path, killed
):
    rows, output = masked_rows / "rows.jsonl", tmp_path / "out.jsonl"
    flags = {"keep_columns": "id,text", "batch_tokens": 512}
    if killed:
        assert predict(2, learned, rows, output, fault=("kill_at", "part-*"), **flags).returncode != 0
    done = predict(3 if killed else 2, learned, rows, output, **flags)
    assert done.returncode == 0, done.output
    assert [json.loads(line) for line in output.read_text().splitlines()] == filled
    assert f"600 rows, 55 with an error, in {output}" in done.output
    assert f"the first row with an error is {rows}:1: there is no [MASK] in column 'text'" in done.output


def test_each_mask_of_a_row_is_filled_and_a_row_without_has_an_error(filled):
    groups = {word: group for group in stories.GROUPS for word in group}
    num_right = num_masks = 0
    assert [row["id"] for row in filled] == list(range(600))
    for number, row in enumerate(filled):
        if number % 11 == 0:
            assert set(row) == {"id", "text", "error"}
            continue
        assert len(row["tokens"]) == row["text"].count("[MASK]") == 1 + number % 2
        assert "[MASK]" not in row["text_filled"]
        others = [groups[word] for word in row["text"].split() if word in groups]
        num_masks += len(row["tokens"])
        num_right += sum(token in others[0] for token in row["tokens"])
    assert num_right > 0.6 * num_masks  # one of four, by chance


def test_the_pipeline_of_transformers_fills_in_the_same(learned, masked_rows, tmp_path):
    from transformers import pipeline

    texts = [json.loads(line)["text"] for line in (masked_rows / "rows.jsonl").read_text().splitlines()[1:9]]
    fill = pipeline("fill-mask", str(learned), top_k=3)
    for text, row in zip(texts, predictions(learned, texts, top_k=3), strict=True):
        expected = fill(text)
        expected = expected if isinstance(expected[0], list) else [expected]
        assert [[each["token"] for each in best] for best in row["filled"]] == [
            [each["token_str"] for each in best] for best in expected
        ]
        for mine, theirs in zip(row["filled"], expected, strict=True):
            assert [each["probability"] for each in mine] == pytest.approx([each["score"] for each in theirs], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [{"compression": "acp"}, {"compression": "fp16"}, {"bf16": "true"}, {"freeze": "*word_embeddings*,*position*"}],
)
def test_tied_embeddings_learn_however_they_are_sent_computed_or_frozen(workshop, settings, tmp_path, more):
    flags = {"mode": "fast", "num_shards": None, "max_steps": 40, "learning_rate": 1e-2, "dropout": 0.0}
    flags |= {"line_by_line": "true", "global_batch_size": 32, "max_train_samples": None, "eval_steps": 40, **more}
    done = workshop.train(2, tmp_path / "run", **{**settings, **flags, "save_steps": None})
    assert done.returncode == 0, done.output
    perplexity = records(tmp_path / "run", "eval")[-1]["eval_perplexity"]
    assert perplexity < (60 if "freeze" in more else 16)  # 78 before the first step
    from safetensors.torch import load_file

    before, after = load_file(workshop.model / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[name]) == ("freeze" in more)
    assert after.get("cls.predictions.decoder.weight", after[name]).equal(after[name])


def test_adapters_are_refused_in_one_line(workshop, settings, tmp_path):
    done = workshop.train(0, tmp_path / "run", **settings, lora_r=4)
    assert done.returncode == 2 and "masked_lm takes no adapter" in done.output, done.output


@pytest.mark.long
def test_a_classifier_begins_with_what_was_learnt_and_reports_its_new_head(workshop, learned, tmp_path):
    from safetensors.torch import load_file

    flags = {"model_name_or_path": learned, "learning_rate": 1e-12, "max_steps": 1}
    done = workshop.train(2, tmp_path / "run", **flags)
    assert done.returncode == 0, done.output
    assert "it was trained on masked tokens: that head is left out, and a new one is drawn" in done.output
    before, after = load_file(learned / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    body = [name for name in before if name.startswith("bert.")]
    assert len(body) > 20 and not any(name.startswith("cls.") for name in after)
    for name in body:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
