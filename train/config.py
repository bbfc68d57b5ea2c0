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

from ringtune.train import checks, direction, flags, huggingface, implied
from ringtune.train.flags import free
from ringtune.train.update_settings import UpdateSettings


@dataclass(frozen=True)
class TrainConfig(UpdateSettings):
    """Settings of one fine-tuning run."""

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
    """Metric that decides; default: the task's own: accuracy, spearmanr of a regression, f1_micro of several labels, f1
    of tags and of answers, mae of levels, loss of masked_lm, or that of a GLUE task."""
    metrics: str | None = free(None)
    """More scores: names of scikit-learn, such as f1_macro,roc_auc, or functions of your own, such as mine.py:cost."""
    slice_by: str | None = free(None)
    """Columns of the validation rows, joined by commas: each score also for the rows of each value, and its largest
    gap."""
    max_gap: str | None = free(None)
    """Gaps between slices above which the run fails when it is done, such as accuracy=0.1,f1=0.2."""
    greater_is_better: bool | None = None
    """Direction of that metric; default: yes unless it is a loss or an error; a function of your own has none."""
    threshold: float | None = None
    """Give a row a label from this probability on; default: for each label what is best for the validation rows."""
    early_stopping_patience: int | None = free(None)
    """Stop after so many evaluations without improvement."""
    early_stopping_threshold: float = free(0.0)
    """An evaluation that is better by no more than this counts as no improvement; it is the best one all the same."""
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
    epilog="exit codes: 0 finished, 75 stopped on request with a checkpoint (run again), 76 pruned by its search, "
    "2 wrong usage, 1 failure",
    dry_run="Check everything, show the plan, train nothing.",
    paths=(
        "output_dir",
        "init_from",
        "pseudo_file",
        "train_file",
        "validation_file",
        "test_file",
        "cache_dir",
        "resume_from_checkpoint",
        "peft_config",
    ),
    foreign=huggingface.TRAIN,
    lists=("train_file", "pseudo_file", "validation_file", "test_file", "lora_target_modules"),
    joined=("text_column_names", "label_column_name", "freeze", "class_weights", "metrics", "slice_by", "max_gap"),
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
    saved = direction.as_now_asked(saved, config)
    direction.refuse_other_function(saved, config)
    flags.refuse_changes(saved, config, "start a new run with another --output_dir or --overwrite_output_dir")
