"""What a user of ``ringtune-predict`` can set, and what a model's own run settles."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ringtune.train import checks, csv_rule, flags, formats, huggingface
from ringtune.train import config as training
from ringtune.train.contract import CONFIG_FILE, UsageError
from ringtune.train.flags import free

ALL_COLUMNS = "all"
OUTPUT_ENDINGS = (".jsonl", ".csv", ".parquet")
STDIN = "-"
DEFAULT_BATCH_TOKENS = 1024


@dataclass(frozen=True)
class PredictConfig:
    """Settings of one prediction."""

    model_name_or_path: str = free()
    """Trained model: a run directory of ringtune-train, one of its checkpoints, another folder, or a hub name."""
    input: str = free()
    """Rows: a .csv, .tsv, .json, .jsonl, .txt (a row a line), .conll, .bio or .iob file (words and tags; all also with
    .gz, .bz2, .xz or .zst), or a .parquet, .arrow or .feather file; several files, a pattern in quotes
    such as 'data/part-*.csv', or a folder of files of one format; - for stdin; or a data set."""
    output: str = free()
    """File to write, one row for each row of the input and in its order: .jsonl, .csv or .parquet."""

    input_format: Literal["csv", "tsv", "json", "jsonl", "text", "parquet", "arrow", "conll"] | None = None
    """Format of the input; default: by its ending."""
    csv_delimiter: str = "auto"
    """What separates the fields of a .csv or .tsv file: a character, or tab; auto: what its header has."""
    csv_quoting: Literal["auto", "minimal", "none"] = "auto"
    """minimal: quotes enclose fields of a .csv or .tsv file. none: they are characters. auto: what the file allows."""
    data_field: str | None = None
    """Field of a .json file that is one object, which holds the rows; default: its only list of objects, if no
    text stands beside it."""
    dataset_config_name: str | None = None
    """Configuration of the data set."""
    dataset_split: str | None = None
    """Split of the data set; default: its only one, or test."""
    text_column_names: str | None = None
    """Column with the text, or two joined by a comma for sentence pairs; default: those the model was trained on."""
    label_column_name: str | None = None
    """Column with the true label, for scores, as in training; default: that of training, if there is one."""
    label_separator: str | None = None
    """What stands between the true labels of a row in one text; default: as in training."""

    keep_columns: str | None = None
    """Input columns to write beside the prediction: names joined by commas, or all; input_NAME where a prediction has
    that name."""
    top_k: int | None = None
    """Write only the k best classes or labels and their probabilities, of a mask the k best tokens, of a question also
    the k best answers as a list, n_best; default: the best class, token or answer, or the labels that are given, and
    the probability of each class or label."""
    threshold: float | None = None
    """Give a row each label from this probability on, where it may have several; default: as the model's run found."""
    doc_stride: int | None = None
    """Tokens that neighbouring windows of a context share; default: as in training."""
    n_best_size: int | None = None
    """Best answers that are kept of a window and of a row; default: as in training."""
    max_answer_length: int | None = None
    """Tokens of an answer at most; default: as in training."""
    null_score_diff_threshold: float | None = None
    """Give a question no answer where that scores more than this above the best one; default: as in training."""
    min_confidence: float | None = None
    """Write only rows whose class has at least this probability; where a row may have several labels, those given have
    it, and the others at most 1 minus it. Their texts are written, too, unless keep_columns says otherwise: rows for
    --pseudo_file of ringtune-train."""
    on_error: Literal["keep", "stop"] = "keep"
    """What to do with a row that cannot be used. keep: write it in its place, with an error. stop: stop all ranks."""

    max_seq_length: int | None = None
    """Tokens per row at most; longer rows are cut; default: as the model was trained, or 128 if it takes as many."""
    batch_tokens: int | None = None
    """Tokens of a batch after padding; default: as the model's run evaluated, or 1024."""
    bf16: bool | None = None
    """Compute in bfloat16 where it is safe; default: as the model's run did, or fp32."""
    fp16: bool | None = None
    """Compute in float16; default: as the model's run did, or fp32."""
    allow_pickle: bool = free(False)
    """Read weights from pytorch_model.bin where there is no model.safetensors, as tensors alone."""
    use_cpu: bool = free(False)
    """Compute on the CPU even where there is a GPU."""
    num_threads: int | None = free(None)
    """CPU threads per rank, a chunk of rows each; default: OMP_NUM_THREADS or a fair share of the cores."""

    metrics: str | None = free(None)
    """More scores of rows with a label: names of scikit-learn, such as f1_macro,roc_auc, or functions of your own, such
    as mine.py:cost."""
    slice_by: str | None = None
    """Columns, joined by commas: each score also for the rows of each value, and its largest gap."""
    report: str | None = free(None)
    """JSON file for the scores, the confusion matrix, and where the time went."""
    overwrite_output: bool = free(False)
    """Replace an output or a --report file that is there, and drop what another, unfinished command left."""
    disable_tqdm: bool = free(False)
    """No progress bar."""

    @property
    def reads_stdin(self) -> bool:
        """Whether the input comes from stdin."""
        return self.input == STDIN


COMMAND = flags.Command(
    name="ringtune-predict",
    settings=PredictConfig,
    description="Predict every row of a file with a fine-tuned model, alone or under horovodrun, mpirun or srun. "
    "Stopped or killed, the same command does only the rest.",
    epilog="exit codes: 0 finished, 75 stopped on request with the finished parts kept (run again), 2 wrong usage, "
    "1 failure",
    dry_run="Check everything, show the plan, write nothing.",
    paths=("input", "output", "report"),
    lists=("input",),
    joined=("text_column_names", "label_column_name", "keep_columns", "metrics", "slice_by"),
    foreign=huggingface.of_prediction((each.name for each in dataclasses.fields(PredictConfig)), training.FIELDS),
)


def parse(argv: Sequence[str] | None = None) -> tuple[PredictConfig, bool]:
    """Return the settings that the arguments say, and whether only a dry run is wanted.

    Raises UsageError for everything wrong with them.
    """
    config, dry_run = flags.parse(COMMAND, sys.argv[1:] if argv is None else argv)
    check(config)
    flags.require_ending(Path(config.output), f"--output {config.output}", OUTPUT_ENDINGS)
    return config, dry_run


def check(config: PredictConfig) -> None:
    """Raise UsageError for a value that cannot work, before anything is read or written."""
    csv_rule.require_delimiter(config.csv_delimiter)
    checks.check_labels(config)
    checks.check_names(config, ("text_column_names", "slice_by", "metrics", "keep_columns"))
    flags.require_counts(config, (*checks.ANSWER_COUNTS, "top_k", "max_seq_length", "batch_tokens", "num_threads"))
    if config.min_confidence is not None and not 0 < config.min_confidence <= 1:
        raise UsageError("--min_confidence", f"{config.min_confidence} is out of range", legal="0 < value <= 1")
    if config.bf16 and config.fp16:
        raise UsageError("--bf16 --fp16", "both are set", legal="one of them")
    if config.reads_stdin and config.input_format is None:
        raise UsageError(
            "--input -",
            "stdin has no ending to take its format from",
            legal=", ".join(dict.fromkeys(formats.BY_ENDING.values())),
            todo="say it with --input_format",
        )


def settings_of_run(model_name_or_path: str) -> Mapping[str, Any]:
    """Return the settings of the training run that a model folder belongs to, nothing if it is not one's.

    Raises UsageError for a size that is no number.
    """
    import yaml

    folder = Path(model_name_or_path).expanduser()
    try:
        if (folder / CONFIG_FILE).is_file():
            found = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        elif (folder / "state.json").is_file():
            found = json.loads((folder / "state.json").read_text(encoding="utf-8"))["config"]
        else:
            return {}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    for name in ("max_seq_length", "per_device_eval_batch_size"):
        if not isinstance(found.get(name), int | None):
            raise UsageError(
                f"--model_name_or_path {model_name_or_path}",
                f"{name} of its run is {str(found[name])[:50]!r}",
                legal="a whole number",
                todo="restore the file of its settings",
            )
    return found


def resolve(config: PredictConfig, run: Mapping[str, Any], max_seq_length: int | None) -> PredictConfig:
    """Return the settings; what was left open is as the model's run had it, so that its scores repeat. **Pure.**

    run: of `settings_of_run`. max_seq_length: of the model's task.json.
    """
    is_set = config.bf16 is not None or config.fp16 is not None
    length = max_seq_length or run.get("max_seq_length")
    rows = run.get("per_device_eval_batch_size")
    return dataclasses.replace(
        config,
        bf16=bool(config.bf16 if is_set else run.get("bf16")),
        fp16=bool(config.fp16 if is_set else run.get("fp16")),
        max_seq_length=config.max_seq_length or length,
        batch_tokens=config.batch_tokens or (rows * length if rows and length else DEFAULT_BATCH_TOKENS),
    )
