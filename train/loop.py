"""The training loop, to be read from top to bottom and extended by editing.

What makes a kill at any line harmless: a step changes nothing but memory; a checkpoint appears by one rename; it is
written before the evaluation of its step, and a run that goes on from it evaluates that step again; the metrics file is
cut back to the checkpoint's step first.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ringtune.train import checkpoint, model, rundir
from ringtune.train.batching import Batching
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import (
    BEST_LINK,
    CHECKPOINT_PREFIX,
    EXIT_FINISHED,
    EXIT_REQUEUE,
    FINISHED_FILE,
    METRICS_FILE,
    TENSORBOARD_DIR,
    StopRequested,
)
from ringtune.train.evaluate import Predictions, predict_table
from ringtune.train.gradient import OrderFreeReducer, OverlappedReducer, Reducer
from ringtune.train.order import DataOrder
from ringtune.train.progress import Progress
from ringtune.train.schedule import learning_rate_factor, num_warmup_steps
from ringtune.train.scores import is_better
from ringtune.train.shards import deal, shards_of_rank
from ringtune.train.step import Outcome, Plan, Precision, Stepper
from ringtune.train.stop import StopWatch
from ringtune.train.tables import Tables
from ringtune.train.tokens import tokenizer_digest
from torch import nn


@dataclass
class Best:
    """The best evaluation so far; part of every checkpoint's state."""

    score: float | None = None
    step: int = 0
    num_worse: int = 0  # evaluations since without improvement


@dataclass
class Loop:
    """Everything one rank needs to take the run from its step to its end."""

    config: TrainConfig
    batching: Batching
    tables: Tables
    tokenizer: Any
    order: DataOrder
    total_steps: int
    network: nn.Module
    optimizer: torch.optim.Optimizer
    comm: Comm
    stop: StopWatch
    precision: Precision
    score: str  # name of the score that decides which model is best
    greater_is_better: bool
    state: Mapping[str, Any] | None  # of the checkpoint to go on from

    def __post_init__(self) -> None:
        self.folder = Path(self.config.output_dir)
        self.is_writer = self.comm.rank == 0
        self.step = 0  # updates done
        self.best = Best()
        self.stepper = Stepper(
            self.network,
            self.optimizer,
            self._reducer(),
            self.comm,
            self.tables.train,
            self.precision,
            seed=self.config.seed,
            max_grad_norm=self.config.max_grad_norm,
            label_smoothing=self.config.label_smoothing_factor,
        )
        if self.state is not None:
            self.step = int(self.state["step"])
            self.best = Best(**self.state["best"])
            self.stepper.scaler.load_state_dict(dict(self.state["loss_scaler"]))

    def _reducer(self) -> Reducer:
        parameters = model.trainable(self.network)
        if self.config.mode == "exact":
            return OrderFreeReducer(parameters, self.comm, self.batching.num_shards)
        return OverlappedReducer(parameters, self.comm, fp16=self.config.fp16_allreduce)

    # The loop

    def run(self) -> int:
        """Train to the end, or to where a stop is agreed on; return the exit code. **Collective.**"""
        self._open_files()
        bar = Progress(
            self.total_steps, "training", initial=self.step, shown=self.is_writer and not self.config.disable_tqdm
        )
        try:
            if self._evaluation_left_over():
                self._evaluate()
            while self.step < self.total_steps and not self._out_of_patience():
                plan = self.plan(self.step)
                started = time.perf_counter()
                outcome = self.stepper.take(plan, self.stop.is_set())
                self.step += 1
                self._log(plan, outcome, time.perf_counter() - started, bar)
                if outcome.stop_requested:
                    self.stop.set()
                if self._save_due():
                    self._save()
                if self.stop.is_set() and outcome.stop_requested:
                    raise StopRequested
                if self._evaluation_due():
                    self._evaluate()
            return self._finish()
        except StopRequested:
            self._settle()
            self._tell(
                f"stopped on request after step {self.step} of {self.total_steps}; the same command goes on from there"
            )
            return EXIT_REQUEUE
        finally:
            bar.close()

    def plan(self, step: int) -> Plan:
        """Return what this rank does in 0-based ``step``."""
        rows = self.order.rows(step)
        shards = deal(rows, self.tables.train.lengths[rows], self.batching.num_shards)
        mine = shards_of_rank(self.batching.num_shards, self.comm.rank, self.comm.size)
        warmup = num_warmup_steps(self.total_steps, self.config.warmup_ratio, self.config.warmup_steps)
        factor = learning_rate_factor(self.config.lr_scheduler_type, step, warmup, self.total_steps)
        return Plan(
            step=step + 1,
            epoch=self.order.place(step)[0],
            num_rows=len(rows),
            shards=[shards[number] for number in mine],
            first_shard=mine.start,
            learning_rate=self.config.learning_rate * factor,
        )

    # When what is due, as functions of the step alone

    def _at(self, strategy: str, every: int | None) -> bool:
        if every is not None:
            return self.step % every == 0
        return strategy == "epoch" and self.step % self.order.steps_per_epoch == 0

    def _evaluation_due(self) -> bool:
        if not self.config.do_eval or not self.tables.validation:
            return False
        return self.step == self.total_steps or self._at(self.config.eval_strategy, self.config.eval_steps)

    def _evaluation_left_over(self) -> bool:
        """Return whether the checkpoint gone on from was written before an evaluation of its step, whose result is lost
        with the process. What was then the last step need not be so now."""
        if self.state is None or not self.config.do_eval or not self.tables.validation:
            return False
        return self._evaluation_due() or self.step == self.state["total_steps"]

    def _save_due(self) -> bool:
        return (
            self.step == self.total_steps
            or self.stop.is_set()
            or self._evaluation_due()
            or self._at(self.config.save_strategy, self.config.save_steps)
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.best.num_worse >= patience

    # What a step leaves behind

    def _open_files(self) -> None:
        if not self.is_writer:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.clean_stale(self.folder)
        self.writer = checkpoint.AsyncWriter(self.folder)
        self.metrics = rundir.MetricsLog(self.folder / METRICS_FILE)
        self.metrics.truncate_after(self.step)
        self.board = None
        if self.config.report_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder / TENSORBOARD_DIR), purge_step=self.step + 1)

    def _log(self, plan: Plan, outcome: Outcome, seconds: float, bar: Progress) -> None:
        rows = self._gather_rows(plan) if self.config.log_row_ids else None
        if not self.is_writer:
            return
        speed = plan.num_rows / seconds
        bar.update(self.step, f"loss {outcome.loss:.4f}, {speed:.1f} samples/s")
        if rows is not None:
            self.metrics.write({"event": "rows", "step": self.step, "rows": rows})
        if self.step % self.config.logging_steps and self.step != self.total_steps:
            return
        self._record(
            "train",
            {
                "epoch": self.step / self.order.steps_per_epoch,
                "total_steps": self.total_steps,
                "loss": outcome.loss,
                "learning_rate": plan.learning_rate,
                "grad_norm": outcome.grad_norm,
                "num_tokens": outcome.num_tokens,
                "padding_share": 1 - outcome.num_tokens / outcome.num_padded_tokens,
                "samples_per_s": speed,
                "tokens_per_s": outcome.num_tokens / seconds,
                "rank_balance": outcome.balance,
                "comm_s": outcome.comm_s,
                "updated": outcome.updated,
            },
        )

    def _gather_rows(self, plan: Plan) -> list[int]:
        """Return the rows that the ranks really computed, in rank and shard order."""
        mine = [int(row) for rows in plan.shards for row in rows]
        return self.comm.gather(torch.tensor(mine, dtype=torch.int64), "loop/rows").tolist()

    def _record(self, event: str, values: Mapping[str, Any]) -> None:
        self.metrics.write({"event": event, "step": self.step, **values})
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(f"{event}/{name}", value, self.step)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that training changes: parameters, buffers and moments, by name."""
        moments = model.optimizer_tensors(self.network, self.optimizer)
        return {**self.network.state_dict(), **{f"optimizer/{name}": each for name, each in moments.items()}}

    def _save(self) -> None:
        """Hand a snapshot to the writing thread; training goes on. **Rank 0 only** does anything."""
        if not self.is_writer:
            return
        epoch, position = self.order.place(self.step)
        state = {
            "step": self.step,
            "epoch": epoch,
            "position": position,
            "num_shards": self.batching.num_shards,
            "total_steps": self.total_steps,
            "best": asdict(self.best),
            "loss_scaler": self.stepper.scaler.state_dict(),
            "config": asdict(self.config),
            "data_digest": self.tables.digest,
            "tokenizer_digest": tokenizer_digest(self.tokenizer),
            "versions": _versions(),
        }
        snapshot = checkpoint.Snapshot(
            step=self.step,
            tensors=checkpoint.to_host(model.optimizer_tensors(self.network, self.optimizer)),
            state=state,
            model=checkpoint.to_host(self.network.state_dict()),
            files=model.pretrained_files(self.network, self.tokenizer),
        )
        self.writer.submit(snapshot, self._rotate)

    def _rotate(self, newest: Path) -> None:
        best = self.folder / BEST_LINK
        kept = {newest, best.resolve()} if best.exists() else {newest}
        checkpoint.rotate(self.folder, self.config.save_total_limit, kept)

    def _settle(self) -> None:
        """Wait until what is being saved is on disk; a failure to save is everyone's. **Collective.**"""
        stop = StopWatch()  # one that nobody asks: the wait itself must not be cut short
        self.comm.work_together(lambda: self.writer.wait() if self.is_writer else None, stop, "loop/settle")

    def _evaluate(self) -> None:
        """Score the validation rows on all ranks, take one decision and tell it to all. **Collective.**"""
        scores: dict[str, float] = {}
        for suffix, table in self.tables.validation.items():
            found = self._predict(table, "evaluating").scores()
            scores |= {f"eval_{name}{'_' + suffix if suffix else ''}": value for name, value in found.items()}
        scores = self.comm.share(scores, "loop/scores")
        value = scores[f"eval_{self.score}"]
        if is_better(
            value,
            self.best.score,
            greater_is_better=self.greater_is_better,
            threshold=self.config.early_stopping_threshold,
        ):
            self.best = Best(value, self.step)
            self._settle()
            if self.is_writer:
                checkpoint.point_best(self.folder, self.folder / f"{CHECKPOINT_PREFIX}{self.step}")
        else:
            self.best = Best(self.best.score, self.best.step, self.best.num_worse + 1)
        if self.is_writer:
            self._record("eval", {**scores, "best": self.best.score})
            self._tell(f"step {self.step}: " + ", ".join(f"{name} {_short(each)}" for name, each in scores.items()))

    def _predict(self, table: Any, what: str) -> Predictions:
        shown = self.is_writer and not self.config.disable_tqdm
        bar = Progress(table.num_rows, what, unit="rows", shown=shown)
        try:
            return predict_table(
                self.network,
                table,
                self.comm,
                self.precision,
                self.config.eval_batch_tokens,
                stop_requested=self.stop.is_set,
                progress=bar.update,
            )
        finally:
            bar.close()

    # The end

    def _finish(self) -> int:
        """Leave the final model where the Hugging Face Trainer would, and say so."""
        self._settle()
        if self.config.load_best_model_at_end and self.best.step:
            best = self.folder / f"{CHECKPOINT_PREFIX}{self.best.step}"
            saved = self.comm.work_together(lambda: checkpoint.load_checkpoint(best), StopWatch(), "loop/best")
            model.restore_model(self.network, saved.model, str(best))
        if self.config.do_predict and self.tables.test is not None:
            self._write_predictions(self._predict(self.tables.test, "predicting"))
        if self.is_writer:
            checkpoint.write_model(
                self.folder,
                checkpoint.to_host(self.network.state_dict()),
                model.pretrained_files(self.network, self.tokenizer),
            )
            # A run that early stopping ended is finished wherever it stands.
            rundir.write_text(
                self.folder / FINISHED_FILE,
                json.dumps({"step": self.total_steps, "stopped_at": self.step, "best": asdict(self.best)}),
            )
            if self.board is not None:
                self.board.close()
            self._tell(self._farewell())
        return EXIT_FINISHED

    def _write_predictions(self, predictions: Predictions) -> None:
        """Write ``predict_results.txt`` with one ``index<tab>prediction`` a line, as run_glue.py does."""
        if not self.is_writer:
            return
        names = self.tables.task.label_names
        guesses = predictions.logits.argmax(axis=1)
        lines = [
            f"{index}\t{names[guesses[index]] if names else f'{logits[0]:.6g}'}"
            for index, logits in enumerate(predictions.logits)
        ]
        rundir.write_text(self.folder / "predict_results.txt", "\n".join(["index\tprediction", *lines, ""]))

    def _farewell(self) -> str:
        best = (
            f"best {self.score} {_short(self.best.score)} at step {self.best.step}\n"
            if self.best.score is not None
            else ""
        )
        longer = f"--num_train_epochs {self.config.num_train_epochs + 1:g}"
        if self.config.max_steps > 0:
            longer = f"--max_steps {2 * self.config.max_steps}"
        return (
            f"{best}model in {self.folder}\n"
            "try next:\n"
            f"  tensorboard --logdir {self.folder / TENSORBOARD_DIR}\n"
            f"  ringtune-train --config {self.folder / 'config.yaml'} {longer}\n"
            '  python -c "from transformers import pipeline; '
            f"print(pipeline('text-classification', '{self.folder}')('what a film'))\""
        )

    def _tell(self, words: str) -> None:
        if self.is_writer:
            print(words, flush=True)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _versions() -> dict[str, str]:
    names = ("ringtune", "torch", "transformers", "horovod", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
