"""One optimizer update over the shards of one global batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ringtune.train.attention import packer_of
from ringtune.train.average import Average
from ringtune.train.batches import Batches
from ringtune.train.clip import clip
from ringtune.train.comm import Comm
from ringtune.train.device import name_out_of_memory, peak_memory
from ringtune.train.embedding import EmbeddingReducer, word_matrix
from ringtune.train.gradient import Reducer
from ringtune.train.keep_answers import EarlierAnswers
from ringtune.train.keep_close import StartWeights
from ringtune.train.objective import Objective
from ringtune.train.optimizer import set_learning_rate
from ringtune.train.order import derive_seed
from ringtune.train.row_update import RowUpdate
from ringtune.train.shards import deal, deal_packed, padded_tokens
from ringtune.train.span import span
from ringtune.train.stopwatch import Stopwatch
from ringtune.train.task import Task
from ringtune.train.tokens import Features
from torch import nn

LOWER = (
    "lower --per_device_train_batch_size with more --gradient_accumulation_steps, or raise --num_shards in exact mode; "
    "lower --max_seq_length; --bf16 true"
)


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
    total_weight: float  # of the terms of the loss over all ranks: what every loss is divided by
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
    peak_memory: int  # bytes, of the rank that has used most so far: of its GPU, or of the host on a CPU
    updated: bool  # False where loss scaling met an overflow and the update was left out


class Stepper:
    """Takes steps: gradients are computed, reduced, clipped, checked and applied, in this order.

    The host gives a GPU the work of the whole step and reads its results once, all together, before the update. Nothing
    else may read a tensor of the device: the GPU would run out of work in the meantime.
    """

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
        objective: Objective,
        average: Average | None = None,
        start: StartWeights | None = None,
        earlier: EarlierAnswers | None = None,
    ) -> None:
        """start, earlier: the weights and the answers to stay close to, if any."""
        self.model, self.optimizer, self.reducer, self.comm = model, optimizer, reducer, comm
        self.task, self.features, self.precision = task, features, precision
        self.seed, self.max_grad_norm, self.objective = seed, max_grad_norm, objective
        self.average, self.start, self.earlier = average or Average(), start, earlier
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.autocast is torch.float16)
        self.packer = packer_of(model, precision.device, precision.autocast)  # None: rows are padded
        self.words = word_matrix(model)
        self.row_update = RowUpdate(optimizer, self.words)
        self.batches = Batches(task, features, self.packer, precision.device, seed)
        self.watch = Stopwatch(precision.device)

    def deal(self, chosen: np.ndarray, num_shards: int) -> list[np.ndarray]:
        """Return the features of a step by shard. chosen: int64 [B], their numbers."""
        lengths = self.features.lengths[chosen]
        if self.packer is None:
            return deal(chosen, lengths, num_shards)
        return deal_packed(chosen, self.packer.costs(lengths), num_shards)

    def take(self, plan: StepPlan, stop_requested: bool, upcoming: StepPlan | None = None) -> StepResult:
        """Make one update, or none at all: raises NotFinite on every rank before the parameters are touched.

        upcoming: the plan of the next step, whose first batch is built while the device still computes this one.
        **Collective.** A crash inside leaves nothing on disk; the run goes on from its last checkpoint. Raises
        OutOfMemory on a rank whose device has too little memory.
        """
        with name_out_of_memory(lambda: self._size(plan), self.precision.device, LOWER):
            self.watch.mark("start")
            self.model.train()
            self.optimizer.zero_grad(set_to_none=True)
            losses = self._compute(plan)
            self.watch.mark("computed")
            with span("reduce wait"):
                self.reducer.finish()
            self.watch.mark("reduced")
            with span("clip"):
                grad_norm = self._clip()
            if upcoming is not None:
                self._prepare(upcoming)
            *mine, norm = torch.cat([losses, grad_norm.reshape(1)]).tolist()  # the one read of the device
            with span("exchange"):
                facts = self._exchange(plan, mine, stop_requested)
            self._refuse_bad_loss(plan, facts)
            self._refuse_bad_gradient(plan, norm)
            with span("update"):
                self._update(plan, norm)
        return StepResult(
            loss=float(sum(facts.losses)),
            grad_norm=norm,
            stop_requested=facts.stop_requested,
            num_tokens=facts.num_tokens,
            num_padded_tokens=facts.num_padded_tokens,
            balance=float(np.mean(facts.seconds) / max(facts.seconds)),
            comm_s=self.watch.seconds("computed", "reduced"),
            peak_memory=facts.peak_memory,
            updated=bool(np.isfinite(norm)),
        )

    def _size(self, plan: StepPlan) -> str:
        """Return what a step asks of the memory, for an error message."""
        largest = max(plan.shards, key=lambda chosen: self._tokens(self.features.lengths[chosen]))
        tokens = int(self.features.lengths[largest].max(initial=0))
        return f"step {plan.step}, its largest shard {len(largest)} rows of up to {tokens} tokens,"

    def _tokens(self, lengths: np.ndarray) -> int:
        """Return the tokens that are computed for a shard, padding included. lengths: of its features."""
        return padded_tokens(lengths) if self.packer is None else self.packer.computed(int(lengths.sum()))

    def _compute(self, plan: StepPlan) -> torch.Tensor:
        """Run forward and backward for this rank's shards; return their losses, each already a share of the mean.

        Returns float32 [shards of this rank], on the device.
        """
        losses = [torch.zeros((), device=self.precision.device) for _ in plan.shards]
        filled = [index for index, chosen in enumerate(plan.shards) if len(chosen)]
        for index in filled:
            shard = plan.first_shard + index
            # Dropout depends on the step and the shard only: no generator state is saved, no rank is special.
            torch.manual_seed(derive_seed("dropout", self.seed, plan.step, shard))
            with span("batch"):
                batch = self.batches.get(plan.step, shard, plan.shards[index])
            with span("forward"), self.precision.context():
                output = self.model(**self.task.inputs(batch))
            loss = self.objective.losses(self.task, output, batch).sum() / plan.total_weight
            whole = (
                loss if self.earlier is None else loss + self._distance(self.earlier, output, batch) / plan.total_weight
            )
            with span("backward"):
                self.reducer.backward(self.scaler.scale(whole), last=index == filled[-1])
            losses[index] = loss.detach().float()
        return torch.stack(losses)

    def _distance(self, earlier: EarlierAnswers, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of what the loss has for answers that differ from the earlier ones. output: the model's."""
        with span("earlier model"), self.precision.context():
            losses = earlier.losses(self.task, output, batch)
        return self.objective.weighted(losses, batch).sum()

    def _prepare(self, plan: StepPlan) -> None:
        """Build the first batch of a step."""
        for index, chosen in enumerate(plan.shards):
            if len(chosen):
                self.batches.prepare(plan.step, plan.first_shard + index, chosen)
                return

    def _exchange(self, plan: StepPlan, losses: list[float], stop_requested: bool) -> _Facts:
        lengths = [self.features.lengths[chosen] for chosen in plan.shards]
        num_tokens = sum(int(each.sum()) for each in lengths)
        mine = [
            float(stop_requested),
            self.watch.seconds("start", "computed"),
            float(num_tokens),
            float(sum(map(self._tokens, lengths))),
            float(peak_memory(self.precision.device)),
            *losses,
        ]
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

    def _clip(self) -> torch.Tensor:
        """Clip the reduced gradient and return its norm before that, a scalar on the device."""
        self.scaler.unscale_(self.optimizer)
        if self.start is not None:
            self.start.pull()
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        return clip(parameters, self.max_grad_norm or float("inf"), self.words, self._filled())

    def _filled(self) -> torch.Tensor | None:
        """Return the rows of the word embeddings whose gradient may not be zero; None: all."""
        return self.reducer.filled if isinstance(self.reducer, EmbeddingReducer) and self.start is None else None

    def _refuse_bad_gradient(self, plan: StepPlan, norm: float) -> None:
        """Raise NotFinite for a gradient that no loss scaling explains; it is the same on all ranks."""
        if not np.isfinite(norm) and not self.scaler.is_enabled():
            raise NotFinite(
                f"step {plan.step}: the gradient is not finite though the loss is; no parameter was changed; "
                "lower --learning_rate"
            )

    def _update(self, plan: StepPlan, norm: float) -> None:
        """Apply the gradient, unless loss scaling met an overflow. It is the same on all ranks, and so is this."""
        set_learning_rate(self.optimizer, plan.learning_rate)
        with self.row_update.after_a_step(self._filled() if np.isfinite(norm) else None):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if np.isfinite(norm):
            self.average.update(plan.step)


class _Facts:
    """One row of numbers from each rank, float64 [world_size, 5 + shards per rank]."""

    def __init__(self, everyone: np.ndarray) -> None:
        self.stop_requested = bool(everyone[:, 0].any())
        self.seconds = everyone[:, 1]
        self.num_tokens = int(everyone[:, 2].sum())
        self.num_padded_tokens = int(everyone[:, 3].sum())
        self.peak_memory = int(everyone[:, 4].max())
        self.losses = everyone[:, 5:].reshape(-1)  # ranks hold contiguous blocks: this is shard order
