"""A configuration file means what a command line of the same words means, whatever YAML makes of them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from conftest import ranks, records
from ringtune.train import config
from ringtune.train.contract import UsageError
from transformers import TrainingArguments
from usage import CLI, usage_error

ENOUGH = ["--model_name_or_path", "m", "--train_file", "x.csv"]


def parse(*words: str) -> tuple[config.TrainConfig, bool]:
    return config.parse([*ENOUGH, *words])


def from_file(tmp_path, name: str, text: str, *words: str) -> config.TrainConfig:
    (tmp_path / name).write_text(text)
    return config.parse([*ENOUGH, "--config", str(tmp_path / name), *words], lambda line: None)[0]


def refusal(tmp_path, name: str, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        from_file(tmp_path, name, text)
    return str(caught.value)


def test_yaml_reads_no_as_false_and_1e_3_as_text_and_both_mean_what_is_written(tmp_path):
    found = from_file(
        tmp_path,
        "c.yaml",
        "eval_strategy: no\nsave_strategy: no\nreport_to: no\nlearning_rate: 1e-3\nmax_steps: 1e2\n"
        "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {lr_end: 1e-7}\nevaluation_strategy: no\n",
    )
    assert (found.eval_strategy, found.save_strategy, found.report_to) == ("no", "no", "none")
    assert (found.learning_rate, found.max_steps, found.lr_scheduler_kwargs) == (1e-3, 100, {"lr_end": 1e-7})
    assert from_file(tmp_path, "again.yaml", config.to_yaml(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("neftune_noise_alpha: 5\n", "c.yaml: neftune_noise_alpha: 5 is refused"),
        ("learningrate: 1\n", "c.yaml: learningrate: unknown key; nearest is learning_rate"),
        ("report_to: [wandb]\n", "c.yaml: report_to: wandb is not taken"),
        ("output_dir: {a: 1}\n", "c.yaml: output_dir: it has 1 values, a; one value"),
        (
            "train_file: [a.csv, b.csv]\n",
            "c.yaml: train_file: it has 2 values, a.csv, b.csv; one text, its values joined by commas: a.csv,b",
        ),
        (
            "metrics: [f1_macro]\n",
            "c.yaml: metrics: it has 1 values, f1_macro; one text, its values joined by commas: f1_",
        ),
        (
            "class_weights: [1, 2, 3]\n",
            "class_weights: it has 3 values, 1, 2, 3; one text, its values joined by commas: 1,2",
        ),
        ("max_gap: {f1: 0.1}\n", "c.yaml: max_gap: it has 1 values, f1; one value"),
    ],
)
def test_a_key_of_a_file_is_treated_as_a_flag(tmp_path, text, words):
    assert words in refusal(tmp_path, "c.yaml", text)


def test_flags_win_over_a_file_wherever_they_stand_and_in_whatever_words(tmp_path):
    (tmp_path / "c.yaml").write_text("warmup_ratio: 0.3\nwarmup_steps: 70\neval_steps: 5\nseed: 1\n")
    file = ["--config", str(tmp_path / "c.yaml")]
    for words in (["--warmup_ratio", "0.1"], ["--warmup_steps", "0.1"]):
        assert (parse(*words, *file)[0].warmup_ratio, parse(*file, *words)[0].warmup_steps) == (0.1, 0)
    assert parse("--warmup_steps", "0", *file)[0].warmup_ratio == 0
    assert parse("--eval_strategy", "epoch", "--seed", "2", *file)[0].eval_strategy == "epoch"
    assert parse("--seed", "2", *file)[0].seed == 2


def test_a_json_file_as_the_only_argument_is_a_configuration(tmp_path):
    settings = {
        "model_name_or_path": "m",
        "train_file": "x.csv",
        "learning_rate": 1e-5,
        "fsdp": [],
        "tf32": None,
        "label_column_name": None,
    }
    (tmp_path / "args.json").write_text(json.dumps(settings, indent="\t"))  # tabs, which YAML does not take
    found, _ = config.parse([str(tmp_path / "args.json")])
    assert found == parse("--learning_rate", "1e-5")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"seed": 1, "seed": 2}', "seed: it is there twice"),
        ("[1]", "it holds no settings"),
        ("{", "Expecting property name"),
    ],
)
def test_a_json_file_of_something_else_is_refused(tmp_path, text, words):
    assert words in refusal(tmp_path, "args.json", text)


def test_all_defaults_of_transformers_in_one_file_are_taken(tmp_path):
    fields = dataclasses.fields(TrainingArguments)
    theirs = {each.name: getattr(each.default, "value", each.default) for each in fields}
    written = {name: value for name, value in theirs.items() if value is not dataclasses.MISSING}
    found = from_file(tmp_path, "args.json", json.dumps({**written, "output_dir": "runs/x", "do_train": True}))
    assert (found.weight_decay, found.warmup_ratio, found.save_steps, found.eval_strategy) == (0.0, 0.0, 500, "no")


def test_what_print_config_writes_is_a_configuration_file(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse("--seed", "7", "--print_config")
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert config.parse(["--config", str(tmp_path / "c.yaml")]) == parse("--seed", "7")
    (tmp_path / "dry.yaml").write_text("dry_run: true\n")
    assert parse("--config", str(tmp_path / "dry.yaml"))[1] and parse("--dry-run")[1] and parse("--dry_run", "true")[1]
    assert not parse("--config", str(tmp_path / "dry.yaml"), "--dry_run=false")[1]


@pytest.mark.system
def test_a_real_run_takes_a_json_file_of_run_glue_and_reports_once_what_it_does_not_use(workshop, tmp_path):
    words = workshop.arguments(tmp_path / "run", max_steps=4, log_row_ids=None)
    settings = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    settings |= {"do_train": True, "do_eval": True, "fp16": False, "push_to_hub": False, "dataloader_num_workers": 4}
    settings |= {"lr_scheduler_type": "constant", "warmup_steps": 2, "eval_strategy": "no", "optim": "adamw_torch"}
    (tmp_path / "args.json").write_text(json.dumps(settings, indent=2))
    done = ranks(2, *CLI, str(tmp_path / "args.json"))
    assert done.returncode == 0, done.output
    assert done.output.count("dataloader_num_workers: not used: rows are tokenised once") == 1
    assert [each["learning_rate"] for each in records(tmp_path / "run", "train")] == [1e-3] * 4
    assert len(records(tmp_path / "run", "eval")) == 1  # at the end
    again = ranks(2, *CLI, str(tmp_path / "args.json"), "--optim", "lion")
    assert "--optim: lion is not taken; adamw_torch, adamw_torch_fused, adafactor" in usage_error(again)
