"""Whether a model knows the tokens that its tokenizer gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ringtune.train.contract import UsageError
from ringtune.train.cut_rows import model_lengths
from ringtune.train.task import Task
from ringtune.train.tokens import IDS, Features
from torch import nn

GROW = "--resize_token_embeddings true draws embeddings for the others"


def fit(model: nn.Module, num_tokens: int, *, resize: bool, seed: int) -> None:
    """Raise UsageError for a tokenizer with more tokens than the model has embeddings, or draw those that lack."""
    if not resize:
        require_known_tokens(_num_embeddings(model), num_tokens, GROW)
    elif num_tokens > _num_embeddings(model):
        torch.manual_seed(seed)
        model.resize_token_embeddings(num_tokens)  # type: ignore[operator]


def _num_embeddings(model: nn.Module) -> int:
    """Return how many tokens a model knows."""
    return len(model.get_input_embeddings().weight)  # type: ignore[operator]


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
    longest = max(several, key=lambda features: int(model_lengths(features).max()))
    lengths = model_lengths(longest)
    try:
        with torch.no_grad():
            model(**task.inputs(task.collate(longest, [int(lengths.argmax())], seed=0)))
    except Exception as error:  # models of all families: whatever they raise for what they do not take
        raise UsageError(
            "--model_name_or_path",
            f"the model takes no row of {lengths.max()} tokens: {type(error).__name__}: {str(error)[:200]}",
            legal=f"a model that {task.auto_class} of transformers runs, with its own tokenizer",
        ) from None
