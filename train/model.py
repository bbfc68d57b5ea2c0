"""The model, the same on every rank without a broadcast."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ringtune.train import attention, final, head, weights
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.pretrained import error_in_one_line, read_config, saved_config
from ringtune.train.recompute import recompute_layers
from ringtune.train.reinit import reinitialise
from ringtune.train.task import Task, of_model
from ringtune.train.task import read as read_task
from ringtune.train.tokens import IDS, Features
from torch import nn

GROW = "--resize_token_embeddings true draws embeddings for the others"


def require_readable(name: str, *, allow_pickle: bool) -> None:
    """Raise UsageError for a folder whose weights cannot be read, or that is not as ringtune wrote it."""
    final.require_whole(name)
    weights.loading_settings(name, allow_pickle=allow_pickle)


def load_model(
    config: TrainConfig,
    task: Task,
    num_tokens: int = 0,
    report: Callable[[str], None] = lambda words: None,
    *,
    pad_token_id: int | None = None,
) -> nn.Module:
    """Return the model to train, fp32, on the CPU.

    num_tokens, pad_token_id: of its tokenizer. report: takes what becomes of a head that the model has. Raises
    UsageError.

    The new head is drawn from the seed, so all ranks get the same one. Every rank reads the same files; broadcasting
    weights or optimizer state through Horovod is neither needed nor safe (its optimizer broadcast takes a real step).
    """
    import transformers

    name = config.model_name_or_path
    reading = weights.loading_settings(name, allow_pickle=config.allow_pickle)
    auto_class = getattr(transformers, task.auto_class)
    padding = {} if pad_token_id is None else {"pad_token_id": pad_token_id}
    model_config = read_config(name, **task.model_settings(), **padding)
    with error_in_one_line(name):
        if config.dropout is not None:
            _set_dropout(model_config, config.dropout)
        torch.manual_seed(config.seed)
        model, loaded = auto_class.from_pretrained(
            name,
            config=model_config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **reading,
        )
    head.require_body(model, loaded, f"--model_name_or_path {name}")
    saved = saved_config(name)
    settled = head.settle_head(model, loaded, head.saved_classes(saved), task, config.seed)
    for line in filter(None, (*_changes(saved, task), settled, _compute_no_more(model, task))):
        report(f"model {name}: {line}")
    _fit_tokens(model, num_tokens, resize=config.resize_token_embeddings, seed=config.seed)
    for line in _change_layers(model, config):
        report(f"model {name}: {line}")
    return model


def _change_layers(model: nn.Module, config: TrainConfig) -> Iterator[str]:
    """Do with a model's layers what the settings ask for; give a line about each."""
    if config.reinit_layers:
        yield reinitialise(model, config.reinit_layers, config.seed)
    if config.gradient_checkpointing:
        yield recompute_layers(model)


def _compute_no_more(model: nn.Module, task: Task) -> str:
    """Let a model leave out what nothing reads: padding, and tokens but the first; return what of it, for the user."""
    if task.reads_first_token:
        leave_out_other_tokens(model)
        if attention.can_pack(model):
            attention.take_packed_rows(model)
            return "its rows are packed: no padding is computed"
    return "its rows are padded"


def _changes(saved: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Give what training changes of a model beside its weights. saved: its configuration as it was. **Pure.**"""
    dtype = str(saved.get("dtype") or saved.get("torch_dtype") or "float32")
    if dtype != "float32":
        yield f"its weights are {dtype}: they are trained and saved as float32"
    before, after = saved.get("problem_type"), task.model_settings().get("problem_type")
    if before == "multi_label_classification" != after:
        yield "it was trained to give a row several labels; now it is trained to give one"


def load_trained(name: str, *, allow_pickle: bool = False) -> tuple[nn.Module, Task, int | None]:
    """Return a trained model as it was saved, fp32, on the CPU; its task; its max_seq_length, None if it is not known.

    The task is that of its ``task.json``; of a folder without one, the task of its configuration. Raises UsageError for
    a model whose head was never trained: it would be drawn at random and predict noise.
    """
    import transformers

    where = f"--model_name_or_path {name}"
    final.require_whole(name)
    reading = weights.loading_settings(name, allow_pickle=allow_pickle)
    saved_config(name)
    found = read_task(Path(name).expanduser())
    auto_class = getattr(transformers, found[0].auto_class if found else "AutoModelForSequenceClassification")
    with error_in_one_line(name):
        model, loaded = auto_class.from_pretrained(
            name, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **reading
        )
    head.refuse_other_shapes(loaded["mismatched_keys"], where)
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise UsageError(
            where,
            f"{missing[0]} is not in it ({len(missing)} tensors): it was not trained to classify",
            legal="a fine-tuned sequence model",
            todo="fine-tune it with ringtune-train first",
        )
    task, max_seq_length = found if found else (of_model(model.config, where), None)
    if task.width != model.config.num_labels:
        raise UsageError(
            where,
            f"its task.json has {task.width} outputs, its model {model.config.num_labels}",
            legal="files of one run",
        )
    _compute_no_more(model, task)
    return model, task, max_seq_length


def _set_dropout(model_config: Any, rate: float) -> None:
    """Set every dropout a BERT-family configuration knows: BERT's names, DistilBERT's and the classifier's."""
    for name in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "dropout",
        "attention_dropout",
        "seq_classif_dropout",
        "embedding_dropout",
        "mlp_dropout",
    ):
        if hasattr(model_config, name):
            setattr(model_config, name, rate)


def _fit_tokens(model: nn.Module, num_tokens: int, *, resize: bool, seed: int) -> None:
    """Raise UsageError for a tokenizer with more tokens than the model has embeddings, or draw those that lack."""
    if not resize:
        require_known_tokens(_num_embeddings(model), num_tokens, GROW)
    elif num_tokens > _num_embeddings(model):
        torch.manual_seed(seed)
        model.resize_token_embeddings(num_tokens)  # type: ignore[operator]


def _num_embeddings(model: nn.Module) -> int:
    """Return how many tokens a model knows."""
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]


def require_known_tokens(known: int, num_tokens: int, todo: str = "check the folder's tokenizer files") -> None:
    """Raise UsageError for a tokenizer with more tokens than the model has embeddings, ``known``. **Pure.**"""
    if num_tokens > known:
        raise UsageError(
            "--model_name_or_path",
            f"its tokenizer has {num_tokens} tokens, the model knows {known}",
            legal="the tokenizer the model was trained with",
            todo=todo,
        )


def refuse_other_tokens(model: nn.Module, task: Task, several: Sequence[Features]) -> None:
    """Raise UsageError if the features hold tokens that the model has no embedding for, or more of them than it takes.

    Its tokenizer is then another model's. Found late, it would be an index out of range in the middle of training.
    """
    largest = max(int(features.token_columns[IDS].max(initial=0)) for features in several)
    known = _num_embeddings(model)
    if largest >= known:
        raise UsageError(
            "--model_name_or_path",
            f"its tokenizer gives token {largest}, the model knows {known} tokens",
            legal="the tokenizer the model was trained with",
            todo="check the folder's tokenizer files",
        )
    longest = max(several, key=lambda features: int(features.lengths.max()))
    try:
        with torch.no_grad():
            model(**task.inputs(task.collate(longest, [int(longest.lengths.argmax())], seed=0)))
    except Exception as error:  # models of all families: whatever they raise for what they do not take
        raise UsageError(
            "--model_name_or_path",
            f"the model takes no row of {longest.lengths.max()} tokens: {type(error).__name__}: {str(error)[:200]}",
            legal=f"a model that {task.auto_class} of transformers runs, with its own tokenizer",
        ) from None


def restore_model(model: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Put saved weights back. Raises UsageError if they are another model's."""
    own = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    tied = {each.data_ptr() for name, each in own.items() if name in tensors}
    wrong += [name for name, each in own.items() if name not in tensors and each.data_ptr() not in tied]
    if wrong:
        raise UsageError(
            where,
            f"it is a checkpoint of another model: {wrong[0]} does not fit ({len(wrong)} tensors)",
            legal="a checkpoint of the same model",
            todo="check --model_name_or_path",
        )
    model.load_state_dict(tensors, strict=False)


def pretrained_files(model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
    """Return what ``from_pretrained`` needs beside the weights: the configuration's and the tokenizer's files."""
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
        tokenizer.save_pretrained(folder)
        return {each.name: each.read_bytes() for each in sorted(Path(folder).iterdir()) if each.is_file()}
