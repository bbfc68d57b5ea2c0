"""What a user can set: one frozen dataclass, the flags made of it, and what may change on resume.

Names and meanings are those of Hugging Face's ``run_glue.py`` and ``TrainingArguments`` wherever these have one.
Imports nothing heavy, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ringtune.train import checks, flags, huggingface, implied
from ringtune.train.flags import free


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one fine-tuning run."""

    model_name_or_path: str
    """Model to start from: a folder, or a hub name."""
    output_dir: str = free("runs/ringtune")
    """Run directory; running the same command again on an unfinished one resumes it."""

    task_name: str | None = None
    """GLUE task (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli)."""
    dataset_name: str | None = None
    """Data set: a hub name, or a folder."""
    dataset_config_name: str | None = None
    """Configuration of the data set."""
    train_file: str | None = free(None)
    """Training rows: .csv, .tsv, .json, .jsonl (also with .gz, .bz2, .xz or .zst), .parquet, .arrow or .feather;
    several files, a pattern in quotes such as 'data/part-*.csv', or a folder of files of one format."""
    validation_file: str | None = free(None)
    """Rows to evaluate on, as train_file."""
    test_file: str | None = free(None)
    """Rows to predict when training is done, as train_file."""
    text_column_names: str | None = None
    """Column with the text, or two joined by a comma for sentence pairs; default: by names that are well known."""
    label_column_name: str = "label"
    """Column with the label, with a list of labels, or with the number to predict; or a column of 0 and 1 for each
    label, joined by commas, such as anger,joy."""
    label_separator: str | None = None
    """What stands between the labels of a row that may have several, in one text; an empty text: none."""
    csv_delimiter: str = "auto"
    """What separates the fields of a .csv or .tsv file: a character, or tab; auto: what its header has."""
    csv_quoting: Literal["auto", "minimal", "none"] = "auto"
    """minimal: quotes enclose fields of a .csv or .tsv file. none: they are characters. auto: what the file allows."""
    data_field: str | None = None
    """Field of a .json file that is one object, which holds the rows; default: its only list of objects."""
    task: Literal["token_classification"] | None = None
    """What to learn, where the rows do not say it: token_classification, a tag for each word, also of .txt and .tsv
    files of columns; default: by the rows (docs/tasks.md)."""
    tag_scheme: Literal["iob1", "iob2", "bioes"] | None = None
    """Scheme of the tags of words, in which predictions are written; default: that of the training rows."""
    regression: bool | None = None
    """Predict a number; default: yes if labels are decimal fractions."""
    max_seq_length: int | None = None
    """Tokens per row at most; longer rows are cut; default: 128, or as many as the model takes if these are fewer."""
    max_train_samples: int | None = None
    """Use only that many training rows, drawn by the seed."""
    max_eval_samples: int | None = None
    """Use only that many evaluation rows, drawn by the seed."""
    resize_token_embeddings: bool = False
    """Draw embeddings for tokens that the tokenizer has and the model does not know."""
    allow_pickle: bool = free(False)
    """Read weights from pytorch_model.bin where there is no model.safetensors, as tensors alone."""
    cache_dir: str | None = free(None)
    """Folder for tokenised data; default: $RINGTUNE_CACHE or ~/.cache/ringtune."""

    mode: Literal["fast", "exact"] = "fast"
    """fast: ring-allreduce overlapped with backward. exact: parameters bitwise equal at any world size."""
    global_batch_size: int | None = None
    """Rows per optimizer update, over all ranks; default 32."""
    per_device_train_batch_size: int | None = free(None)
    """Rows per rank and backward, on average; with the others it must multiply out to the global batch size."""
    gradient_accumulation_steps: int | None = free(None)
    """Backwards per optimizer update and rank."""
    num_shards: int | None = None
    """Parts a step is dealt into; default: ranks x gradient_accumulation_steps, in exact mode 8."""
    per_device_eval_batch_size: int = 32
    """Rows of max_seq_length per evaluation batch; of shorter ones it takes as many more as cost the same."""
    compression: Literal["none", "fp16", "bf16", "acp"] = "none"
    """How gradients are sent in fast mode. none: as fp32. fp16: half the bytes, scaled so that none overflows. bf16:
    half the bytes, added in fp32. acp: as factors of low rank, what these lack is added to the next gradient (ACP-SGD).
    docs/wire.md has what is exact."""
    compression_rank: int = 4
    """Rank of the factors of acp."""
    fp16_allreduce: bool = False
    """The same as --compression fp16."""
    num_threads: int | None = None
    """CPU threads per rank; default: OMP_NUM_THREADS or a fair share of the cores; in exact mode 1."""

    learning_rate: float = 5e-5
    """Peak learning rate."""
    layerwise_lr_decay: float = 1.0
    """What the learning rate of a layer is of the one above it, the head's being whole; such as 0.9."""
    reinit_layers: int = 0
    """Last layers that start from random weights, with the pooler; steadier where rows are few."""
    gradient_checkpointing: bool = free(False)
    """Keep only the input of each layer and compute the layer again in backward: less memory, slower."""
    freeze: str | None = None
    """Parameters to leave as they are: patterns of their names, joined by commas, such as 'bert.embeddings.*'."""
    lora_r: int | None = None
    """Train an adapter and leave the model as it is: LoRA of this rank (docs/few-parameters.md)."""
    lora_alpha: float | None = None
    """What LoRA gives is multiplied by lora_alpha / lora_r; default: twice lora_r."""
    lora_dropout: float | None = None
    """Dropout in front of LoRA; default 0.05."""
    lora_target_modules: str | None = None
    """Layers that get LoRA: ends of their names joined by commas, such as query,value, or all-linear; default: those of
    attention that peft has for the architecture."""
    peft_config: str | None = None
    """JSON file of another adapter than LoRA, or of all its settings, as peft's adapter_config.json."""
    save_merged_model: bool = free(False)
    """Beside the adapter, write the model with it merged in, to output_dir/merged."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "lamb", "sgd"] = "adamw_torch_fused"
    """Optimizer; the first two are one. adafactor: as transformers' Trainer sets it. lamb: for large
    batches."""
    sgd_momentum: float = 0.9
    """Momentum of sgd."""
    num_train_epochs: float = free(3.0)
    """Epochs to train."""
    max_steps: int = free(-1)
    """Steps to train; overrides num_train_epochs if positive."""
    warmup_ratio: float = 0.1
    """Part of all steps over which the learning rate rises from 0."""
    warmup_steps: int = 0
    """Steps over which it rises, or below 1 their part; overrides warmup_ratio if positive; 0 alone: no warm-up."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "one_cycle",
    ] = "linear"
    """How the learning rate falls behind the warm-up; constant has no warm-up either."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """What its schedule takes, as JSON, such as {"num_cycles": 3}."""
    weight_decay: float = 0.01
    """Decoupled weight decay, not on biases and norms."""
    adam_beta1: float = 0.9
    """Decay of AdamW's and LAMB's first moment."""
    adam_beta2: float = 0.999
    """Decay of AdamW's and LAMB's second moment."""
    adam_epsilon: float = 1e-8
    """Term added to their denominator."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this norm, after the reduction; 0 for never."""
    label_smoothing_factor: float = 0.0
    """Share of the target spread over all classes."""
    class_weights: str | None = None
    """What a row of each class counts in training: auto (all classes the same), numbers in the order of the classes, or
    by name, such as spam=5,ham=1. Where a row may have several labels: what each counts in rows that have it (auto:
    rows without it / rows with it)."""
    focal_gamma: float = 0.0
    """Count rows less that are right already: the loss times (1 - probability) to this power (focal loss)."""
    balanced_sampling: bool = False
    """Draw each class equally often: rows of rare classes several times in an epoch, of frequent ones not all."""
    dropout: float | None = None
    """Dropout of hidden layers and attention; default: the model's own."""
    bf16: bool = False
    """Compute in bfloat16 where it is safe; weights stay fp32."""
    fp16: bool = False
    """Compute in float16 with loss scaling; weights stay fp32."""
    tf32: bool = False
    """Let a GPU multiply fp32 matrices with the precision of TF32; much faster, about three digits."""
    use_cpu: bool = free(False)
    """Compute on the CPU even where there is a GPU."""
    share_gpus: bool = free(False)
    """Let several ranks use one GPU, their gradients summed through the host's memory: for tests, and slow."""
    seed: int = 42
    """Source of everything random."""

    do_train: bool = True
    """Train."""
    do_eval: bool = True
    """Evaluate at the end of training, and during it as eval_strategy says."""
    do_predict: bool = False
    """Write predictions for test_file at the end."""
    eval_strategy: Literal["no", "steps", "epoch"] = free("epoch")
    """When to evaluate."""
    eval_steps: int | float | None = free(None)
    """Evaluate every so many steps, or below 1 their part of all; alone it implies eval_strategy steps."""
    save_strategy: Literal["no", "steps", "epoch"] = free("epoch")
    """When to save; a checkpoint is also written before every evaluation and at the end."""
    save_steps: int | float | None = free(None)
    """Save every so many steps, or below 1 their part of all; alone it implies save_strategy steps."""
    save_total_limit: int | None = free(2)
    """Checkpoints kept, beside the best one."""
    logging_steps: int | float = free(10)
    """Write metrics every so many steps, or below 1 their part of all."""
    logging_first_step: bool = free(False)
    """Write them of the first step, too."""
    load_best_model_at_end: bool = free(False)
    """Leave the best model as the final one, not the last."""
    metric_for_best_model: str | None = None
    """Metric that decides; default: the task's own (accuracy, or spearmanr for regression)."""
    metrics: str | None = free(None)
    """More scores: names of scikit-learn, such as f1_macro,roc_auc, or functions of your own, such as mine.py:cost."""
    slice_by: str | None = free(None)
    """Columns of the validation rows, joined by commas: each score also for the rows of each value, and its largest
    gap."""
    max_gap: str | None = free(None)
    """Gaps between slices above which the run fails when it is done, such as accuracy=0.1,f1=0.2."""
    greater_is_better: bool | None = None
    """Direction of that metric; default: yes unless it is a loss or an error."""
    threshold: float | None = None
    """Give a row a label from this probability on; default: for each label what is best for the validation rows."""
    early_stopping_patience: int | None = free(None)
    """Stop after so many evaluations without improvement."""
    early_stopping_threshold: float = free(0.0)
    """What counts as an improvement."""
    resume_from_checkpoint: str | None = free(None)
    """latest, or a checkpoint folder; an unfinished output_dir resumes without it."""
    keep_schedule: bool = free(False)
    """Going on for more steps than planned, keep the learning rates of that plan, and after it its last one."""
    overwrite_output_dir: bool = free(False)
    """Start afresh in an output_dir that holds an earlier run; what ringtune wrote there is removed."""
    log_row_ids: bool = free(False)
    """Record which rows every step consumed, as gathered from the ranks."""
    profile_steps: str | None = free(None)
    """A:B, record steps A to B, counted from 1: a trace for each rank in output_dir/profile, for Perfetto."""
    report_to: Literal["tensorboard", "none"] = free("tensorboard")
    """Where curves go beside metrics.jsonl."""
    disable_tqdm: bool = free(False)
    """No progress bar."""

    @property
    def row_tokens(self) -> int:
        """Tokens per row at most, of a configuration whose model is known."""
        assert self.max_seq_length is not None
        return self.max_seq_length

    @property
    def eval_batch_tokens(self) -> int:
        """Tokens of an evaluation batch after padding."""
        return self.per_device_eval_batch_size * self.row_tokens


COMMAND = flags.Command(
    name="ringtune-train",
    settings=TrainConfig,
    description="Fine-tune a BERT-family model, alone or under horovodrun, mpirun or srun. "
    "Stopped or killed, the same command goes on from the last checkpoint as if nothing had happened. "
    "ringtune-train convert FOLDER writes model.safetensors beside a pytorch_model.bin; ringtune-train sweep and "
    "ringtune-train glue train several runs.",
    epilog="exit codes: 0 finished, 75 stopped on request with a checkpoint (run again), 2 wrong usage, 1 failure",
    dry_run="Check everything, show the plan, train nothing.",
    paths=(
        "output_dir",
        "train_file",
        "validation_file",
        "test_file",
        "cache_dir",
        "resume_from_checkpoint",
        "peft_config",
    ),
    foreign=huggingface.TRAIN,
    lists=("train_file", "validation_file", "test_file", "lora_target_modules"),
    imply=implied.imply,
    complete=implied.complete,
)
FIELDS = COMMAND.fields


def parse(
    argv: Sequence[str] | None = None, note: Callable[[str], None] = flags.print_note
) -> tuple[TrainConfig, bool]:
    """Return the configuration that the arguments say, and whether only a dry run is wanted.

    note: as `flags.parse` has it. Raises UsageError for everything wrong with them.
    """
    config, dry_run = flags.parse(COMMAND, sys.argv[1:] if argv is None else argv, note)
    checks.check(config)
    return config, dry_run


def to_yaml(config: TrainConfig) -> str:
    """Return the configuration as YAML that ``--config`` reads back to an equal one."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def refuse_changes(saved: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise UsageError if a resumed run would compute something else than the saved configuration did. **Pure.**"""
    flags.refuse_changes(saved, config, "start a new run with another --output_dir or --overwrite_output_dir")
