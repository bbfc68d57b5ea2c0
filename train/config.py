"""What a user can set: one frozen dataclass, the flags made of it, and what may change on resume.

Names and meanings are those of Hugging Face's ``run_glue.py`` and ``TrainingArguments`` wherever these have one.
Imports nothing heavy, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ringtune.train.contract import UsageError

MAY_CHANGE = "may change when a run is resumed"


def _free(default: Any) -> Any:
    """Declare a field that does not touch the mathematics of the run and may differ after a resume."""
    return field(default=default, metadata={MAY_CHANGE: True})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one fine-tuning run."""

    model_name_or_path: str
    """Model to start from: a folder, or a hub name."""
    output_dir: str = _free("runs/ringtune")
    """Run directory; running the same command again on an unfinished one resumes it."""

    task_name: str | None = None
    """GLUE task (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli)."""
    dataset_name: str | None = None
    """Data set: a hub name, or a folder."""
    dataset_config_name: str | None = None
    """Configuration of the data set."""
    train_file: str | None = None
    """Training rows: .csv, .tsv, .json, .jsonl or .parquet."""
    validation_file: str | None = None
    """Rows to evaluate on, of the same format."""
    test_file: str | None = None
    """Rows to predict when training is done, of the same format."""
    text_column_names: str | None = None
    """Column with the text, or two joined by a comma for sentence pairs; default: as run_glue.py guesses."""
    label_column_name: str = "label"
    """Column with the label, or with the number to predict."""
    regression: bool | None = None
    """Predict a number; default: yes if the labels are floats."""
    max_seq_length: int = 128
    """Tokens per row at most; longer rows are cut."""
    max_train_samples: int | None = None
    """Use only that many training rows."""
    max_eval_samples: int | None = None
    """Use only that many evaluation rows."""
    cache_dir: str | None = _free(None)
    """Folder for tokenised data; default: $RINGTUNE_CACHE or ~/.cache/ringtune."""

    mode: Literal["fast", "exact"] = "fast"
    """fast: ring-allreduce overlapped with backward. exact: parameters bitwise equal at any world size."""
    global_batch_size: int | None = None
    """Rows per optimizer update, over all ranks; default 32."""
    per_device_train_batch_size: int | None = _free(None)
    """Rows per rank and backward, on average; with the others it must multiply out to the global batch size."""
    gradient_accumulation_steps: int | None = _free(None)
    """Backwards per optimizer update and rank."""
    num_shards: int | None = None
    """Parts a step is dealt into; default: ranks x gradient_accumulation_steps, in exact mode 8."""
    per_device_eval_batch_size: int = 32
    """Rows of max_seq_length per evaluation batch; of shorter ones it takes as many more as cost the same."""
    fp16_allreduce: bool = False
    """Send gradients as fp16 (fast mode)."""
    num_threads: int | None = None
    """CPU threads per rank; default: OMP_NUM_THREADS or a fair share of the cores, in exact mode 1 (the count is part of the sums)."""

    learning_rate: float = 5e-5
    """Peak learning rate of AdamW."""
    num_train_epochs: float = _free(3.0)
    """Epochs to train."""
    max_steps: int = _free(-1)
    """Steps to train; overrides num_train_epochs if positive."""
    warmup_ratio: float = 0.1
    """Part of all steps over which the learning rate rises from 0."""
    warmup_steps: int = 0
    """Steps over which it rises; overrides warmup_ratio if positive."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay, not on biases and norms."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment."""
    adam_epsilon: float = 1e-8
    """Term added to AdamW's denominator."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this norm, after the reduction; 0 for never."""
    label_smoothing_factor: float = 0.0
    """Share of the target spread over all classes."""
    dropout: float | None = None
    """Dropout of hidden layers and attention; default: the model's own."""
    bf16: bool = False
    """Compute in bfloat16 where it is safe; weights stay fp32."""
    fp16: bool = False
    """Compute in float16 with loss scaling; weights stay fp32."""
    seed: int = 42
    """Source of everything random."""

    do_train: bool = True
    """Train."""
    do_eval: bool = True
    """Evaluate at the end of training, and during it as eval_strategy says."""
    do_predict: bool = False
    """Write predictions for test_file at the end."""
    eval_strategy: Literal["no", "steps", "epoch"] = _free("epoch")
    """When to evaluate."""
    eval_steps: int | None = _free(None)
    """Evaluate every so many steps; implies eval_strategy steps."""
    save_strategy: Literal["no", "steps", "epoch"] = _free("epoch")
    """When to save; a checkpoint is also written before every evaluation and at the end."""
    save_steps: int | None = _free(None)
    """Save every so many steps; implies save_strategy steps."""
    save_total_limit: int | None = _free(2)
    """Checkpoints kept, beside the best one."""
    logging_steps: int = _free(10)
    """Write metrics every so many steps."""
    load_best_model_at_end: bool = _free(False)
    """Leave the best model as the final one, not the last."""
    metric_for_best_model: str | None = None
    """Metric that decides; default: the task's own (accuracy, or spearmanr for regression)."""
    greater_is_better: bool | None = None
    """Direction of that metric; default: yes unless it is a loss or an error."""
    early_stopping_patience: int | None = _free(None)
    """Stop after so many evaluations without improvement."""
    early_stopping_threshold: float = _free(0.0)
    """What counts as an improvement."""
    resume_from_checkpoint: str | None = _free(None)
    """latest, or a checkpoint folder; an unfinished output_dir resumes without it."""
    overwrite_output_dir: bool = _free(False)
    """Start afresh in an output_dir that holds an earlier run; what ringtune wrote there is removed."""
    log_row_ids: bool = _free(False)
    """Record which rows every step consumed, as gathered from the ranks."""
    report_to: Literal["tensorboard", "none"] = _free("tensorboard")
    """Where curves go beside metrics.jsonl."""
    disable_tqdm: bool = _free(False)
    """No progress bar."""

    @property
    def eval_batch_tokens(self) -> int:
        """Tokens of an evaluation batch after padding."""
        return self.per_device_eval_batch_size * self.max_seq_length


FIELDS = {each.name: each for each in dataclasses.fields(TrainConfig)}
_FLAGS_ONLY = ("config", "print_config", "help", "dry_run", "print_completion")


def parser() -> Any:
    """Return the jsonargparse parser of ``ringtune-train``."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True, add_print_completion_argument=True)
    result = ArgumentParser(
        prog="ringtune-train",
        description="Fine-tune a BERT-family model, alone or under horovodrun, mpirun or srun. "
        "Stopped or killed, the same command goes on from the last checkpoint as if nothing had happened.",
        epilog="exit codes: 0 finished, 75 stopped on request with a checkpoint (run again), 2 wrong usage, 1 failure",
        exit_on_error=False,
        add_help=True,
    )
    result.add_argument("--config", action="config", help="YAML file with these settings; flags win over it.")
    result.add_argument("--dry_run", action="store_true", help="Check everything, show the plan, train nothing.")
    result.add_class_arguments(TrainConfig)
    return result


def normalise(argv: Sequence[str]) -> list[str]:
    """Spell flags as jsonargparse wants them: underscores, and ``--bf16`` for ``--bf16 true``, as run_glue.py takes both.

    **Pure.** Raises UsageError for an unknown flag, naming the nearest.
    """
    known = {*FIELDS, *_FLAGS_ONLY}
    result: list[str] = []
    for index, word in enumerate(argv):
        if not word.startswith("--"):
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in known:
            raise UsageError(f"--{name}", "there is no such flag", _nearest(name, known), "see --help")
        if name in FIELDS and "bool" in str(FIELDS[name].type) and not equals:
            following = argv[index + 1] if index + 1 < len(argv) else "--"
            if following.startswith("-"):
                equals, value = "=", "true"
        result.append(f"--{name}{equals}{value}")
    return result


def parse(argv: Sequence[str] | None = None) -> tuple[TrainConfig, bool]:
    """Return the configuration that the arguments say, and whether only a dry run is wanted.

    Raises UsageError for everything wrong with them.
    """
    words = normalise(sys.argv[1:] if argv is None else argv)
    the_parser = parser()
    _check_config_file(words)
    try:
        namespace = the_parser.parse_args(words)
    except SystemExit:
        raise
    except Exception as error:  # jsonargparse and argparse raise many kinds; each becomes one line
        raise UsageError("arguments", _one_line(error), "", "see --help") from None
    values = {name: getattr(namespace, name) for name in FIELDS}
    config = TrainConfig(**{name: _expand(name, value) for name, value in values.items()})
    check(config)
    return config, bool(namespace.dry_run)


def _check_config_file(words: Sequence[str]) -> None:
    """Say what is wrong with the YAML file in its own words before the parser wraps them in its own."""
    import yaml

    for index, word in enumerate(words):
        if word.split("=")[0] != "--config":
            continue
        name = word.partition("=")[2] or (words[index + 1] if index + 1 < len(words) else "")
        try:
            content = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--config {name}", str(error.strerror), "a YAML file", "check the path") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"--config {name}", _one_line(error), "YAML: one 'key: value' a line", "mend it") from None
        if not isinstance(content, Mapping):
            raise UsageError(f"--config {name}", "it holds no settings", "YAML: one 'key: value' a line", "mend it")
        for key in content:
            if key not in FIELDS:
                raise UsageError(f"{name}: {key}", "unknown key", _nearest(str(key), FIELDS), "see --help")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"nearest is {near[0]}" if near else "the legal ones are in --help"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


_PATHS = ("output_dir", "train_file", "validation_file", "test_file", "cache_dir", "resume_from_checkpoint")


def _expand(name: str, value: Any) -> Any:
    if isinstance(value, str) and (name in _PATHS or value.startswith("~")):
        return os.path.expanduser(value)
    return value


def check(config: TrainConfig) -> None:
    """Raise UsageError for a value that cannot work, before anything is read or written."""
    positive = ("max_seq_length", "learning_rate", "logging_steps", "per_device_eval_batch_size", "adam_epsilon")
    for name in positive:
        if getattr(config, name) <= 0:
            raise UsageError(
                f"--{name}", f"{getattr(config, name)} is not positive", "a number above 0", "give another"
            )
    counts = ("eval_steps", "save_steps", "save_total_limit", "num_threads", "max_train_samples", "max_eval_samples",
              "early_stopping_patience")  # fmt: skip
    for name in counts:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}", f"{value} is too few", "a whole number from 1", "give another")
    fractions = ("warmup_ratio", "label_smoothing_factor", "dropout", "adam_beta1", "adam_beta2")
    for name in fractions:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"--{name}", f"{value} is out of range", "0 <= value < 1", "give another")
    for name in ("weight_decay", "max_grad_norm", "warmup_steps", "seed", "early_stopping_threshold"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}", f"{getattr(config, name)} is negative", "a number from 0", "give another")
    if config.max_steps <= 0 and config.num_train_epochs <= 0:
        raise UsageError("--num_train_epochs", f"{config.num_train_epochs} trains nothing", "above 0", "give another")
    if config.bf16 and config.fp16:
        raise UsageError("--bf16 --fp16", "both are set", "one of them", "drop one")
    if config.mode == "exact" and config.fp16_allreduce:
        raise UsageError("--fp16_allreduce", "exact mode sums integers", "fp16 on the wire goes with fast", "drop one")
    sources = [name for name in ("task_name", "dataset_name", "train_file") if getattr(config, name)]
    if not sources:
        raise UsageError("data", "nothing to train on", "--train_file, --task_name or --dataset_name", "give one")
    if "train_file" in sources and len(sources) > 1 and not (sources == ["task_name", "train_file"]):
        raise UsageError("data", f"both --{sources[0]} and --{sources[1]} are given", "one source of rows", "drop one")
    if not config.do_train:
        raise UsageError("--do_train", "false leaves nothing to do", "true", "leave the flag out")
    if config.load_best_model_at_end and not config.do_eval:
        raise UsageError("--load_best_model_at_end", "nothing is evaluated", "needs --do_eval true", "change one")


def to_yaml(config: TrainConfig) -> str:
    """Return the configuration as YAML that ``--config`` reads back to an equal one."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def refuse_changes(saved: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise UsageError if a resumed run would compute something else than the saved configuration did. **Pure.**"""
    current = dataclasses.asdict(config)
    for name, each in FIELDS.items():
        if each.metadata.get(MAY_CHANGE) or name not in saved or saved[name] == current[name]:
            continue
        free = ", ".join(key for key, other in FIELDS.items() if other.metadata.get(MAY_CHANGE))
        raise UsageError(
            f"--{name}",
            f"{current[name]!r} is not what the run to be resumed has, {saved[name]!r}",
            f"the world size and these may change: {free}",
            f"set {name} back, or start a new run with another --output_dir or --overwrite_output_dir",
        )
