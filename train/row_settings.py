"""The settings of a run that say what is trained, on which rows, and what the rows mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ringtune.train.flags import free


@dataclass(frozen=True)
class RowSettings:
    """Model, run directory and rows."""

    model_name_or_path: str
    """Model to start from: a folder, or a hub name."""
    output_dir: str = free("runs/ringtune")
    """Run directory; running the same command again on an unfinished one resumes it."""
    init_from: str | None = None
    """Earlier run, its final folder or a checkpoint, to keep learning from: its weights, its kind of task, its columns
    and max_seq_length unless they are given, and its classes, beside which new ones are learnt
    (docs/keep-learning.md)."""
    replay: str | None = None
    """RUN=0.2: draw this part of each global batch from the training rows of an earlier run."""
    pseudo_file: str | None = free(None)
    """More training rows, whose labels were predicted (ringtune-predict --min_confidence), as train_file."""
    pseudo_weight: float = 1.0
    """What a row of pseudo_file counts in the loss; a training row counts 1."""

    task_name: str | None = None
    """GLUE task (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli)."""
    dataset_name: str | None = None
    """Data set: a hub name, or a folder."""
    dataset_config_name: str | None = None
    """Configuration of the data set."""
    train_file: str | None = free(None)
    """Training rows: .csv, .tsv, .json, .jsonl, column files of words and tags .conll, .bio or .iob, with --task
    masked_lm also .txt (all also with .gz, .bz2, .xz or .zst), .parquet, .arrow or .feather; several files, a
    pattern in quotes such as 'data/part-*.csv', or a folder of files of one format."""
    validation_file: str | None = free(None)
    """Rows to evaluate on, as train_file."""
    test_file: str | None = free(None)
    """Rows to predict when training is done, as train_file."""
    text_column_names: str | None = None
    """Column with the text, or two joined by a comma for sentence pairs; of multiple_choice, those of a context and its
    choices; default: by names that are well known."""
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
    """Field of a .json file that is one object, which holds the rows; default: its only list of objects, if no
    text stands beside it."""
    task: Literal["token_classification", "question_answering", "multiple_choice", "ordinal", "masked_lm"] | None = None
    """What to learn, where the rows do not say it: token_classification, a tag for each word, also of .txt and .tsv
    files of columns; question_answering, the part of a context that answers a question; multiple_choice, which of a
    row's choices is right; ordinal, one of several levels in order, such as 1 to 5; masked_lm, masked tokens of texts
    without labels, also of .txt files of a text a line; default: by the rows (docs/tasks.md)."""
    mlm_probability: float | None = None
    """Share of the tokens that masked_lm masks; default 0.15."""
    whole_word_mask: bool = False
    """Mask all pieces of a word, or none."""
    line_by_line: bool = False
    """Let masked_lm read each text by itself; default: texts are joined and cut into rows of max_seq_length tokens."""
    tag_scheme: Literal["iob1", "iob2", "bioes"] | None = None
    """Scheme of the tags of words, in which predictions are written; default: that of the training rows."""
    choice_labels: Literal["from_0", "from_1", "letters", "texts"] | None = None
    """How labels name the right choice of a row: by its number from 0 or from 1, its letter, or its text; default: as
    the training rows have it, numbers from 0."""
    doc_stride: int | None = None
    """Tokens that neighbouring windows of a context share; default: 128, or a quarter of max_seq_length."""
    n_best_size: int | None = None
    """Best answers that are kept of a window and of a row; default: 20."""
    max_answer_length: int | None = None
    """Tokens of an answer at most, where one is predicted; default: 30."""
    null_score_diff_threshold: float | None = None
    """Give a question no answer where that scores more than this above the best one; default: 0."""
    regression: bool | None = None
    """Predict a number; default: yes if labels are decimal fractions, or more than 20 different whole numbers written
    as decimals."""
    max_seq_length: int | None = None
    """Tokens per row, or per choice of a row, at most; longer ones are cut; default: 128, or as many as the model takes
    if these are fewer."""
    window_stride: int | None = None
    """Read longer rows as a whole: in windows of max_seq_length tokens that share so many, their logits pooled."""
    window_pooling: Literal["mean", "max"] = "mean"
    """How the logits of a row's windows make those of the row."""
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
