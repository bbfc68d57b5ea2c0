"""One optimizer update over the shards of one global batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from ringtune.train.comm import Comm
from ringtune.train.gradient import Reducer
from ringtune.train.order import derive_seed
from ringtune.train.shards import padded_tokens
from ringtune.train.task import Task
from ringtune.train.tokens import Features
from torch import nn


class NotFinite(Exception):
    """The loss or the gradient of a step is not a finite number; the parameters are those from before the step."""


@dataclass(frozen=True)
class Precision:
    """Where the arithmetic happens and in which format."""

    device: torch.device
    autocast: torch.dtype | None  # None: fp32 throughout

    def context(self) -> AbstractContextManager[object]:
        """Return the autocast context of one forward."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


@dataclass(frozen=True)
class StepPlan:
    """What this rank computes in one step."""

    step: int  # 1-based number of the update
    epoch: int
    num_features: int  # of the step over all ranks
    num_terms: int  # of the loss over all ranks: what every loss is divided by
    shards: Sequence[np.ndarray]  # this rank's shards, each an array of feature numbers
    first_shard: int  # number of shards[0] among all shards of the step
    learning_rate: float


@dataclass(frozen=True)
class StepResult:
    """What happened in a step, the same on all ranks."""

    loss: float  # mean over the terms of the step, summed in shard order, float64
    grad_norm: float  # before clipping
    stop_requested: bool  # by a signal on any rank
    num_tokens: int  # real tokens
    num_padded_tokens: int  # tokens computed, padding included
    balance: float  # mean over the ranks of the time spent computing / the largest, in (0, 1]
    comm_s: float  # rank 0's wait for the reduction after its own backward
    updated: bool  # False where loss scaling met an overflow and the update was left out


class Stepper:
    """Takes steps: gradients are computed, reduced, checked, clipped and applied, in this order."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        reducer: Reducer,
        comm: Comm,
        task: Task,
        features: Features,
        precision: Precision,
        *,
        seed: int,
        max_grad_norm: float,
        label_smoothing: float,
    ) -> None:
        self.model, self.optimizer, self.reducer, self.comm = model, optimizer, reducer, comm
        self.task, self.features, self.precision = task, features, precision
        self.seed, self.max_grad_norm, self.label_smoothing = seed, max_grad_norm, label_smoothing
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.autocast is torch.float16)

    def take(self, plan: StepPlan, stop_requested: bool) -> StepResult:
        """Make one update, or none at all: raises NotFinite on every rank before the parameters are touched.

        **Collective.** A crash inside leaves nothing on disk; the run goes on from its last checkpoint.
        """
        started = time.perf_counter()
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._compute(plan)
        computed = time.perf_counter()
        facts = self._exchange(plan, losses, computed - started, stop_requested)
        self.reducer.finish()
        comm_s = time.perf_counter() - computed
        self._refuse_bad_loss(plan, facts)
        grad_norm, updated = self._update(plan)
        return StepResult(
            loss=float(sum(facts.losses)),
            grad_norm=grad_norm,
            stop_requested=facts.stop_requested,
            num_tokens=facts.num_tokens,
            num_padded_tokens=facts.num_padded_tokens,
            balance=float(np.mean(facts.seconds) / max(facts.seconds)),
            comm_s=comm_s,
            updated=updated,
        )

    def _compute(self, plan: StepPlan) -> list[float]:
        """Run forward and backward for this rank's shards; return their losses, each already a share of the mean."""
        losses = []
        filled = [index for index, chosen in enumerate(plan.shards) if len(chosen)]
        for index, chosen in enumerate(plan.shards):
            if not len(chosen):
                losses.append(0.0)
                continue
            shard = plan.first_shard + index
            # Dropout depends on the step and the shard only: no generator state is saved, no rank is special.
            torch.manual_seed(derive_seed("dropout", self.seed, plan.step, shard))
            batch = self._batch(chosen, derive_seed("collate", self.seed, plan.step, shard))
            with self.precision.context():
                output = self.model(**self.task.inputs(batch))
            loss = self.task.losses(output, batch, self.label_smoothing).sum() / plan.num_terms
            self.reducer.backward(self.scaler.scale(loss), last=index == filled[-1])
            losses.append(loss.item())
        return losses

    def _batch(self, chosen: np.ndarray, seed: int) -> dict[str, torch.Tensor]:
        batch = self.task.collate(self.features, chosen, seed)
        return {name: each.to(self.precision.device, non_blocking=True) for name, each in batch.items()}

    def _exchange(self, plan: StepPlan, losses: list[float], seconds: float, stop_requested: bool) -> _Facts:
        lengths = [self.features.lengths[chosen] for chosen in plan.shards]
        num_tokens = sum(int(each.sum()) for each in lengths)
        mine = [float(stop_requested), seconds, float(num_tokens), float(sum(map(padded_tokens, lengths))), *losses]
        everyone = self.comm.gather(torch.tensor([mine], dtype=torch.float64), "step/facts").numpy()
        return _Facts(everyone)

    def _refuse_bad_loss(self, plan: StepPlan, facts: _Facts) -> None:
        """Raise NotFinite on all ranks alike, naming step, rank and rows, if any shard's loss is not finite."""
        if np.isfinite(facts.losses).all():
            return
        bad = np.flatnonzero(~np.isfinite(facts.losses)).tolist()
        rows_of = [list(dict.fromkeys(self.features.row_of[chosen].tolist())) for chosen in plan.shards]
        mine = dict(enumerate(rows_of, start=plan.first_shard))
        everyone = self.comm.gather_values({shard: mine[shard] for shard in bad if shard in mine}, "step/bad_rows")
        where = "; ".join(
            f"rank {rank}: {facts.losses[shard]} in the shard of rows {rows}"
            for rank, shards in enumerate(everyone)
            for shard, rows in shards.items()
        )
        raise NotFinite(
            f"step {plan.step}: the loss is not finite; {where}; no parameter was changed; "
            "look at these rows, or lower --learning_rate"
        )

    def _update(self, plan: StepPlan) -> tuple[float, bool]:
        """Clip the reduced gradient and apply it. The gradient is the same on all ranks, so are the decisions."""
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate
        self.scaler.unscale_(self.optimizer)
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        max_norm = self.max_grad_norm or float("inf")
        grad_norm = float(nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True))
        if not np.isfinite(grad_norm) and not self.scaler.is_enabled():
            raise NotFinite(
                f"step {plan.step}: the gradient is not finite though the loss is; no parameter was changed; "
                "lower --learning_rate, or leave out --fp16_allreduce"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return grad_norm, bool(np.isfinite(grad_norm))


class _Facts:
    """One row of numbers from each rank, float64 [world_size, 4 + shards per rank]."""

    def __init__(self, everyone: np.ndarray) -> None:
        self.stop_requested = bool(everyone[:, 0].any())
        self.seconds = everyone[:, 1]
        self.num_tokens = int(everyone[:, 2].sum())
        self.num_padded_tokens = int(everyone[:, 3].sum())
        self.losses = everyone[:, 4:].reshape(-1)  # ranks hold contiguous blocks: this is shard order
