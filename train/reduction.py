"""Which reducer a run sums its gradients with, and what of it a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from ringtune.train import model, rank_state
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import UsageError
from ringtune.train.gradient import OrderFreeReducer, OverlappedReducer, Reducer
from ringtune.train.half import BfloatReducer, HalfReducer
from ringtune.train.lowrank import LowRankReducer
from torch import nn


def choose_reducer(
    config: TrainConfig, network: nn.Module, comm: Comm, num_shards: int, report: Callable[[str], None]
) -> Reducer:
    """Return the reducer that the configuration asks for, of the parameters of a model that are trained.

    report: takes a line that says what is sent, if that is not the gradients as they are.
    """
    parameters = model.trainable(network)
    if config.mode == "exact":
        return OrderFreeReducer(parameters, comm, num_shards)
    if config.compression == "none":
        return OverlappedReducer(parameters, comm)
    reducer: HalfReducer | BfloatReducer | LowRankReducer
    if config.compression == "fp16":
        reducer = HalfReducer(parameters, comm)
    elif config.compression == "bf16":
        _refuse_gpu(parameters)
        reducer = BfloatReducer(parameters, comm)
    else:
        reducer = LowRankReducer(parameters, comm, rank=config.compression_rank, seed=config.seed)
    report(reducer.describe())
    return reducer


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
