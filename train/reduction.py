"""Which reducer a run sums its gradients with, and what of it a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from ringtune.train import rank_state
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.embedding import EmbeddingReducer, OrderFreeEmbeddingReducer, word_embeddings
from ringtune.train.gradient import OrderFreeReducer, OverlappedReducer, Reducer
from ringtune.train.half import BfloatReducer, HalfReducer
from ringtune.train.lowrank import LowRankReducer
from ringtune.train.trainable import trainable
from torch import nn


def choose_reducer(
    config: TrainConfig, network: nn.Module, comm: Comm, num_shards: int, report: Callable[[str], None]
) -> Reducer:
    """Return the reducer that the configuration asks for, of the parameters of a model that are trained.

    report: takes a line that says what is sent, if that is not the gradients as they are.
    """
    if config.compression == "acp":  # of the word embeddings, too: their factors are smaller than their rows
        low_rank = LowRankReducer(trainable(network), comm, rank=config.compression_rank, seed=config.seed)
        report(low_rank.describe())
        return low_rank
    words = word_embeddings(network)
    others = {name: each for name, each in trainable(network).items() if each is not words}
    if config.mode == "exact":
        exact = OrderFreeReducer(others, comm, num_shards)
        return exact if words is None else OrderFreeEmbeddingReducer(exact, words, comm, num_shards)
    by_rows = "" if words is None else "; those of word embeddings by rows, as fp32"
    reducer: Reducer = OverlappedReducer(others, comm)
    if config.compression == "fp16":
        reducer = half = HalfReducer(others, comm)
        report(half.describe() + by_rows)
    elif config.compression == "bf16":
        _refuse_gpu(others)
        reducer = bfloat = BfloatReducer(others, comm)
        report(bfloat.describe() + by_rows)
    return reducer if words is None else EmbeddingReducer(reducer, words, comm)


def _refuse_gpu(parameters: Mapping[str, nn.Parameter]) -> None:
    if any(each.is_cuda for each in parameters.values()):
        raise UsageError(
            "--compression bf16",
            "Horovod 0.28.1 sums no bf16, and what takes its place here is for gradients in the host's memory",
            legal="fp16 where gradients lie on a GPU: as many bytes, and more digits",
        )


def own_state(reducer: Reducer) -> dict[str, torch.Tensor]:
    """Return what this rank keeps from step to step and no other rank has; nothing of most reducers."""
    return reducer.own_state() if isinstance(reducer, LowRankReducer) else {}


def restore_reducer(reducer: Reducer, checkpoint: Path, step: int, comm: Comm, report: Callable[[str], None]) -> None:
    """Go on with what the ranks had after ``step`` updates. Raises UsageError if it is another model's."""
    if not isinstance(reducer, LowRankReducer):
        return
    tensors, num_ranks = rank_state.read(checkpoint, comm.rank, comm.size)
    try:
        reducer.restore(tensors, step)
    except (KeyError, RuntimeError) as error:
        raise UsageError(
            str(checkpoint),
            f"its {rank_state.NAME.pattern} do not fit this model: {error}",
            legal="a checkpoint of the same model and --compression_rank",
            todo="check --model_name_or_path",
        ) from None
    if num_ranks != comm.size:
        report(
            f"{checkpoint}: the errors of compression of {num_ranks} rank(s) go on as those of {comm.size}: "
            "their sum stays, which all that follows depends on, up to rounding"
        )
