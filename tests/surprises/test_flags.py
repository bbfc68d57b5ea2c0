"""The flags and configuration files that users bring from Hugging Face mean what they mean there, or are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ringtune.train import config, due, flags
from ringtune.train.contract import UsageError
from ringtune.train.document import markdown
from ringtune.train.foreign_flag import OFF, Fate
from ringtune.train.huggingface import DEFAULTS, TRAIN
from ringtune.train.predict import config as prediction
from transformers import TrainingArguments

ROOT = Path(__file__).parents[2]
ENOUGH = ["--model_name_or_path", "m", "--train_file", "x.csv"]
#: Of the examples run_glue.py and run_classification.py, and of the TrainingArguments of transformers 4.
_EXAMPLES = """
model_name_or_path config_name tokenizer_name cache_dir use_fast_tokenizer model_revision token trust_remote_code
ignore_mismatched_sizes task_name dataset_name dataset_config_name max_seq_length overwrite_cache pad_to_max_length
max_train_samples max_eval_samples max_predict_samples train_file validation_file test_file do_regression
remove_splits remove_columns text_column_names text_column_delimiter label_column_name metric_name train_split_name
validation_split_name test_split_name shuffle_train_dataset shuffle_seed
overwrite_output_dir evaluation_strategy per_gpu_train_batch_size per_gpu_eval_batch_size no_cuda use_mps_device
use_ipex jit_mode_eval half_precision_backend fp16_backend fp16_opt_level logging_dir save_safetensors warmup_ratio
group_by_length adafactor past_index tpu_num_cores tpu_metrics_debug push_to_hub_model_id push_to_hub_organization
push_to_hub_token include_inputs_for_metrics include_tokens_per_second mp_parameters fsdp_min_num_params
fsdp_transformer_layer_cls_to_wrap torchdynamo ray_scope dispatch_batches split_batches sharded_ddp xpu_backend
use_auth_token
"""
EXAMPLES = _EXAMPLES.split()
FIELDS = {each.name: each for each in dataclasses.fields(TrainingArguments)}


def parse(*words: str) -> tuple[config.TrainConfig, list[str]]:
    """Return the settings of a command line that has what every run needs, and the lines that are reported."""
    notes: list[str] = []
    return config.parse([*ENOUGH, *words], notes.append)[0], notes


def refusal(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    return str(caught.value)


def changed(*words: str) -> dict[str, object]:
    """Return the settings that differ from those of a command line without the words."""
    before, after = dataclasses.asdict(parse()[0]), dataclasses.asdict(parse(*words)[0])
    return {name: value for name, value in after.items() if value != before[name]}


# The table


def test_every_flag_of_the_installed_transformers_and_of_its_examples_is_decided():
    assert {*FIELDS, *EXAMPLES} - {*TRAIN} == set()
    taken = {name for name, flag in TRAIN.items() if flag.fate is Fate.TAKEN}
    assert taken == {name for name in TRAIN if name in config.FIELDS}, "taken, or decided in two ways"
    assert {flag.instead for flag in TRAIN.values() if flag.fate is Fate.RENAMED} <= {*config.FIELDS}
    assert {flag.same_as for flag in TRAIN.values()} - {""} <= {*config.FIELDS}


def test_every_default_that_is_not_that_of_transformers_is_listed():
    ours = {each.name: each.default for each in config.FIELDS.values()}
    differ = {name for name in {*FIELDS} & {*ours} if not same_default(ours[name], FIELDS[name].default)}
    # A warm-up is a share by default, a name of transformers 4; the score that decides is none until it is needed.
    assert differ - {"save_steps"} == {*DEFAULTS} - {"warmup_steps", "metric_for_best_model"}


def same_default(ours: object, theirs: object) -> bool:
    theirs = getattr(theirs, "value", theirs)
    return ours == theirs or (ours is False and theirs is None) or (ours is None and theirs == 1)


def test_the_document_is_what_the_table_makes():
    assert (ROOT / "docs" / "from-huggingface.md").read_text() == markdown()


def test_a_refusal_names_a_way_and_every_reason_is_one_line():
    for name, flag in TRAIN.items():
        assert "\n" not in flag.reason + flag.instead
        if flag.fate is Fate.REFUSED:
            assert flag.reason and flag.instead, name
        if flag.fate is Fate.UNUSED:
            assert flag.reason and not flag.instead, name


def translate(*words: str) -> tuple[dict[str, str], list[str]]:
    """Return what the words give before any default is filled in, and the lines that are reported."""
    notes: list[str] = []
    return flags.translate(config.COMMAND, words, notes.append)[0], notes


@pytest.mark.parametrize("name", [name for name, flag in TRAIN.items() if flag.fate is Fate.REFUSED])
def test_a_refused_flag_is_refused_in_one_line_and_passes_where_it_asks_for_nothing(name):
    flag = TRAIN[name]
    assert f"--{name}: " in refusal(f"--{name}", "77")
    for value in flag.same:
        assert translate(f"--{name}={value}") == ({}, [])
    if flag.same == OFF:
        assert translate(f"--no_{name}") == translate(f"--{name}", "False") == ({}, [])
        assert f"--{name}: " in refusal(f"--{name.replace('_', '-')}")


@pytest.mark.parametrize("name", [name for name, flag in TRAIN.items() if flag.fate is Fate.UNUSED])
def test_a_flag_without_effect_is_accepted_with_one_line(name):
    line = f"--{name}: not used: {TRAIN[name].reason}"
    assert translate(f"--{name}", "77", "--seed", "5") == ({"seed": "5"}, [line])
    for value in TRAIN[name].same:
        assert translate(f"--{name}={value}") == ({}, [])


# Values


def test_a_secret_is_not_printed():
    assert "hf_abc" not in refusal("--token", "hf_abc") + refusal("--hub-token=hf_abc")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--fp16", {"fp16": True}),
        ("--no_do_eval", {"do_eval": False}),
        ("--no-do-eval", {"do_eval": False}),
        ("--bf16=True --no_fp16", {"bf16": True}),
        ("--bf16 1", {"bf16": True}),
        ("--no_cuda", {"use_cpu": True}),
        ("--do_regression true", {"regression": True}),
        ("--per_gpu_train_batch_size 3", {"per_device_train_batch_size": 3}),
        ("--max-steps 1e3", {"max_steps": 1000}),
        ("--evaluation_strategy NO", {"eval_strategy": "no"}),
        ("--eval_strategy Steps --eval_steps 7", {"eval_strategy": "steps", "eval_steps": 7}),
        ("--eval_steps 7", {"eval_strategy": "steps", "eval_steps": 7}),
        ("--eval_strategy epoch --eval_steps 7", {"eval_steps": 7}),
        ("--save_steps 0.1", {"save_strategy": "steps", "save_steps": 0.1}),
        ("--lr_scheduler_type COSINE", {"lr_scheduler_type": "cosine"}),
        ("--lr_scheduler_kwargs {}", {}),
        ("--warmup_steps 0.06", {"warmup_ratio": 0.06}),
        ("--warmup_steps 0", {"warmup_ratio": 0.0}),
        ("--warmup_steps 0 --warmup_ratio 0.2", {"warmup_ratio": 0.2}),
        ("--warmup_steps 50 --warmup_ratio 0.2", {"warmup_steps": 50, "warmup_ratio": 0.2}),
        ("--report_to none", {"report_to": "none"}),
        ("--report_to tensorboard", {}),
        ("--report_to all", {}),
        ("--optim adamw_torch", {}),
        ("--optim adamw_torch_fused", {}),
        ("--tokenizer_name m --config_name m", {}),
        ("--data_seed 7 --seed 7", {"seed": 7}),
        ("--label_names labels", {}),
        ("--train_sampling_strategy random --logging_strategy steps", {}),
        ("--resume_from_checkpoint True", {"resume_from_checkpoint": "latest"}),
        ("--logging_first_step", {"logging_first_step": True}),
    ],
)
def test_a_value_of_hugging_face_means_the_same(words, expected):
    assert changed(*words.split()) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--save_strategy best", "--save_strategy: best is not taken: a checkpoint is written before every evaluation"),
        ("--eval_strategy never", "--eval_strategy: never is not taken; no, steps, epoch"),
        ("--lr_scheduler_type reduce_lr_on_plateau", "--early_stopping_patience"),
        ("--report_to tensorboard wandb", "--report_to: wandb is not taken: curves go to"),
        (
            "--optim adamw_8bit",
            "--optim: adamw_8bit is not taken; adamw_torch, adamw_torch_fused,",
        ),
        ("--adafactor true", "--adafactor: true is refused: it is an optimizer by name; --optim adafactor"),
        ("--logging_strategy epoch", "--logging_steps N"),
        ("--tokenizer_name other", "--tokenizer_name: other is refused"),
        ("--data_seed 7", "--data_seed: 7 is refused: one seed draws everything; --seed"),
        ("--warmup_steps 0.1 --warmup_ratio 0.2", "two shares of all steps"),
        ("--eval_strategy no --evaluation_strategy epoch", "epoch here, and no under another name"),
        ("--eval_steps 0", "--eval_steps: 0 is no number of steps"),
        ("--logging_steps 2.5", "--logging_steps: 2.5 is no number of steps"),
        ("--seed 1 2", "--seed: it has 2 values, 1, 2; one value"),
        ("--seed --fp16", "--seed: it has no value"),
        ("--no_fp16 true", "--no_fp16: it takes no value"),
        ("--no_seed", "--no_seed: there is no such flag; nearest is seed"),
        ("--do_train false", "ringtune-predict evaluates and predicts"),
        ("--local_rank 0", "ranks come from Horovod or MPI"),
        ("--gradient_checkpoint", "nearest is gradient_checkpointing"),
        ("--learning-rte 1", "nearest is learning_rate"),
        ("--early_stopping_patience 2 --do_eval false", "--early_stopping_patience: nothing is evaluated"),
        (
            "--early_stopping_patience 2 --eval_strategy no",
            "the one evaluation is at the end",
        ),
        ("--task_name mrpc --dataset_name f", "--dataset_name --train_file: both are given"),
    ],
)
def test_what_has_another_meaning_is_refused_by_name(words, expected):
    assert expected in refusal(*words.split())


@pytest.mark.parametrize(
    ("words", "setting", "steps"),
    [
        ("--eval_strategy steps", "eval_steps", 500),
        ("--eval_strategy steps --logging_steps 50", "eval_steps", 50),
        ("--save_strategy steps", "save_steps", 500),
    ],
)
def test_steps_without_a_number_are_those_of_transformers_and_reported(words, setting, steps):
    found, notes = parse(*words.split())
    assert getattr(found, setting) == steps and notes == [
        f"--{words.split()[0][2:]} steps: every {steps} steps (--{setting})"
    ]


def test_the_cache_is_one_of_rows_and_that_is_reported_where_a_model_comes_from_the_hub(tmp_path):
    assert parse("--cache_dir", "c")[1] == [
        "--cache_dir: of tokenised rows; models from the hub lie where HF_HOME says"
    ]
    assert parse("--model_name_or_path", str(tmp_path), "--cache_dir", "c")[1] == []


def test_do_eval_without_do_train_trains_and_that_is_reported():
    assert any("also trains" in line for line in parse("--do_predict")[1])
    assert parse("--do_predict", "--do_train")[1] == []


def test_a_share_of_all_steps_is_that_of_transformers():
    found, _ = parse("--eval_steps", "0.3", "--save_strategy", "no", "--logging_steps", "0.25", "--logging_first_step")
    plan = due.Schedule(found, total_steps=10, steps_per_epoch=4, evaluates=True)
    assert [step for step in range(1, 11) if plan.evaluate(step)] == [3, 6, 9, 10]
    assert [step for step in range(1, 11) if plan.log(step)] == [1, 3, 6, 9, 10]


def test_eval_strategy_wins_over_eval_steps_as_in_transformers():
    found, _ = parse("--eval_strategy", "epoch", "--eval_steps", "3")
    plan = due.Schedule(found, total_steps=10, steps_per_epoch=4, evaluates=True)
    assert [step for step in range(1, 11) if plan.evaluate(step)] == [4, 8, 10]


# ringtune-predict


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--gradient_checkpointing", "it belongs to training"),
        ("--mode exact", "it belongs to training"),
        ("--output_dir runs/x", "--output FILE"),
        ("--per_device_eval_batch_size 4", "--batch_tokens"),
        ("--top 4", "nearest is top_k"),
    ],
)
def test_prediction_names_its_own_way_for_a_flag_of_training(words, expected):
    with pytest.raises(UsageError, match=expected):
        prediction.parse(["--model_name_or_path", "m", "--input", "i.csv", "--output", "o.csv", *words.split()])


def test_prediction_takes_the_names_of_run_glue():
    words = [
        "--model_name_or_path",
        "m",
        "--test_file",
        "i.csv",
        "--output",
        "o.csv",
        "--no_cuda",
        "--max-seq-length",
        "9",
    ]
    found, _ = prediction.parse(words)
    assert (found.input, found.use_cpu, found.max_seq_length) == ("i.csv", True, 9)
