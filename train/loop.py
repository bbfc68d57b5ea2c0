"""The training loop, to be read from top to bottom and extended by editing.

What makes a kill at any line harmless: a step changes nothing but memory; a checkpoint appears by one rename; it is
written before the evaluation of its step, and a run that goes on from it evaluates that step again; the metrics file is
cut back to the checkpoint's step first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ringtune.train import slices, task
from ringtune.train.best import Best
from ringtune.train.checkpoint import RunState
from ringtune.train.config import TrainConfig
from ringtune.train.contract import EXIT_PRUNED, EXIT_REQUEUE, FITTED_TASK_FILE, StopRequested
from ringtune.train.due import Schedule
from ringtune.train.evaluate import Predictions, predict_features
from ringtune.train.journal import Journal, closing_message, write_predictions
from ringtune.train.measures import Measure
from ringtune.train.order import DataOrder
from ringtune.train.profiler import Profiler
from ringtune.train.pruning import Pruner
from ringtune.train.saver import Saver, versions
from ringtune.train.schedule import learning_rate
from ringtune.train.shards import shards_of_rank
from ringtune.train.slices import ColumnScores
from ringtune.train.span import span
from ringtune.train.step import NotFinite, Stepper, StepPlan, StepResult
from ringtune.train.stop import StopFlag
from ringtune.train.tables import Tables
from ringtune.train.task import Task
from ringtune.train.tokens import Features


@dataclass
class Loop:
    """Everything one rank needs to take a run from its step to its end."""

    config: TrainConfig
    tables: Tables
    tokenizer_digest: str
    order: DataOrder
    num_shards: int
    due: Schedule
    stepper: Stepper
    saver: Saver
    stop: StopFlag
    named_scores: Mapping[str, Measure]  # beside those of the task
    score: str  # name of the score that decides which model is best
    greater_is_better: bool
    resumed: RunState | None  # the state of the checkpoint to go on from
    schedule_steps: int  # that the learning rates are planned for; after them the last one stays
    pruner: Pruner | None = None  # of a trial of a search

    def __post_init__(self) -> None:
        self.folder = Path(self.config.output_dir)
        self.comm = self.stepper.comm
        self.total_steps = self.due.total_steps
        self.peak_memory = 0  # bytes, as in StepResult
        self.step = self.resumed.step if self.resumed else 0  # updates done
        self.profiler = Profiler(self.config.profile_steps, self.folder, self.comm)
        self.best = self.resumed.best if self.resumed else Best()
        self.fitted: dict[int, Task] = {}  # the task with what the evaluation of a step fitted, by step
        if self.resumed:
            self.stepper.scaler.load_state_dict(dict(self.resumed.loss_scaler))

    def open_files(self) -> None:
        """Remove what a killed process left, and cut the metrics back to this run's step."""
        can_link = self.saver.open(self.step, self.best.step)
        self.journal = Journal(
            self.folder,
            step=self.step,
            total_steps=self.total_steps,
            writes=self.comm.rank == 0,
            board=self.config.report_to == "tensorboard",
            bar=not self.config.disable_tqdm,
            metrics=self.resumed.metrics if self.resumed else None,
        )
        self.profiler.report_missed(self.step, self.journal.report)
        if not can_link:
            self.journal.report(f"{self.folder}: no symbolic links here; which checkpoint is best is in finished.json")

    def run(self) -> int:
        """Train to the end, or to where a stop is agreed on; return the exit code. **Collective.**"""
        try:
            if self.resumed and self.due.evaluate_again(self.step, self.resumed.total_steps):
                self._evaluate()
            while self.step < self.total_steps and not self._ends_early():
                self.profiler.begin(self.step + 1)
                plan = self.plan(self.step)
                started = time.perf_counter()
                result = self.stepper.take(plan, self.stop.is_set(), self._upcoming())
                self.step += 1
                self.peak_memory = result.peak_memory
                with span("log"):
                    self._log(plan, result, time.perf_counter() - started)
                # Not by this rank's own flag: a signal may have come to it alone since the ranks agreed.
                if self.due.save(self.step) or result.stop_requested:
                    with span("save"):
                        self.saver.save(self._state())
                if result.stop_requested:
                    raise StopRequested
                if self.due.evaluate(self.step):
                    with span("evaluate"):
                        self._evaluate()
                self.profiler.end(self.step, self.journal.report)
            return self._finish()
        except StopRequested:
            self.profiler.finish(self.journal.report)
            self.saver.settle()
            self.journal.report(
                f"stopped on request after step {self.step} of {self.total_steps}; the same command goes on from there"
            )
            return EXIT_REQUEUE
        except Exception as error:  # the process ends without waiting for the thread that writes a checkpoint
            lost = self.saver.settle_after_failure(on_all=isinstance(error, NotFinite))
            if lost is not None:
                self.journal.report(f"the checkpoint that was being saved is lost: {lost}")
            raise
        finally:
            self.journal.close()

    def plan(self, step: int) -> StepPlan:
        """Return what this rank does in 0-based ``step``."""
        chosen = self.order.rows(step)
        features = self.tables.train
        shards = self.stepper.deal(chosen, self.num_shards)
        mine = shards_of_rank(self.num_shards, self.comm.rank, self.comm.size)
        return StepPlan(
            step=step + 1,
            epoch=self.order.place(step)[0],
            num_features=len(chosen),
            total_weight=self.stepper.objective.total_weight(features, chosen),
            shards=[shards[number] for number in mine],
            first_shard=mine.start,
            learning_rate=learning_rate(self.config, step, self.schedule_steps),
        )

    def _upcoming(self) -> StepPlan | None:
        """Return the plan of the next step where its first batch can be built while a GPU computes this one."""
        has_next = self.step + 1 < self.total_steps
        return self.plan(self.step + 1) if has_next and self.stepper.precision.device.type == "cuda" else None

    def _log(self, plan: StepPlan, result: StepResult, seconds: float) -> None:
        self.journal.step(plan, result, seconds)
        if self.config.log_row_ids:  # what the ranks really computed, in rank and shard order
            mine = [int(row) for chosen in plan.shards for row in self.tables.train.row_of[chosen]]
            rows = self.comm.gather(torch.tensor(mine, dtype=torch.int64), "loop/rows")
            self.journal.record_rows(plan.step, rows.tolist())
        if self.due.log(plan.step):
            self.journal.record_step(plan, result, seconds, plan.step / self.order.steps_per_epoch)

    def _state(self) -> RunState:
        epoch, position = self.order.place(self.step)
        return RunState(
            step=self.step,
            total_steps=self.total_steps,
            epoch=epoch,
            position=position,
            num_shards=self.num_shards,
            best=self.best,
            loss_scaler=self.stepper.scaler.state_dict(),
            config=asdict(self.config),
            data_digest=self.tables.digest,
            tokenizer_digest=self.tokenizer_digest,
            versions=versions(),
            metrics=self.journal.metrics_entry(),
            schedule_steps=self.schedule_steps,
            rows_digest=self.tables.rows_digest,
            start_digest=next((each.digest for each in (self.stepper.start, self.stepper.earlier) if each), None),
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.best.num_worse >= patience

    def _ends_early(self) -> bool:
        return self._out_of_patience() or self._is_pruned()

    def _is_pruned(self) -> bool:
        return self.pruner is not None and self.pruner.pruned

    # Evaluation

    def _evaluate(self) -> None:
        """Score the validation rows on all ranks and keep the best model; rank 0's scores decide. **Collective.**"""
        scores, sliced = self._score_validation()
        value = scores[f"eval_{self.score}"]
        threshold = self.config.early_stopping_threshold
        self.best = self.best.after(value, self.step, greater_is_better=self.greater_is_better, threshold=threshold)
        if self.best.step == self.step:
            self.saver.point_best(self.step)
        self.journal.record_scores(self.step, scores, self.best.score)
        self.journal.record_slices(self.step, sliced, self.score)
        if self.pruner is not None:
            is_last = self.step >= self.total_steps or self._out_of_patience()
            if self.pruner.judge(self.due.num_evaluations(self.step), value, is_last=is_last):
                self.journal.report(f"pruned after step {self.step} of {self.total_steps}: other trials do better")

    def _score_validation(self, judged: Task | None = None) -> tuple[dict[str, float], list[ColumnScores]]:
        """Return rank 0's scores of the validation rows, as a whole and by slice. **Collective.**

        judged: with what is fitted; None: it is fitted to the first of them, and kept.
        """
        scores: dict[str, float] = {}
        sliced: list[ColumnScores] = []
        for suffix, features in self.tables.validation.items():
            predictions = self._predict(features, "evaluating")
            judged = judged or self._fit(predictions, self.step)
            score = partial(predictions.scores, judged, self.named_scores)
            end = f"_{suffix}" if suffix else ""
            scores |= {f"eval_{name}{end}": value for name, value in score().items()}
            sliced += slices.by_column(self.tables.slices[suffix], score, end)
        return self.comm.share((scores, sliced), "loop/scores")

    def _fit(self, predictions: Predictions, step: int) -> Task:
        """Fit what the task fits to validation rows, keep it in the checkpoint of a step, return it. **Collective.**"""
        assert predictions.labels is not None
        found = self.fitted[step] = self.tables.task.fitted(predictions.outputs, predictions.labels)
        if found != self.tables.task:
            self.saver.add_file(step, FITTED_TASK_FILE, task.to_bytes(found, self.config.row_tokens))
        return found

    def _final_task(self, step: int) -> Task:
        """Return the task of the final model, which is that of a step. **Collective.**

        A run that was killed since has to evaluate that step again: its model is the same, and so is what is fitted.
        """
        found = self.tables.task
        if found.has_several_labels and self.due.evaluates:
            if step not in self.fitted:
                self._fit(self._predict(self.tables.validation[""], "evaluating"), step)
            found = self.fitted[step]
            self.journal.report(found.describe())
        return found

    def _predict(self, features: Features, what: str) -> Predictions:
        bar = self.journal.rows_bar(features.num_features, what)
        try:
            with self.stepper.average.in_model():
                return predict_features(
                    self.stepper.model,
                    self.tables.task,
                    features,
                    self.comm,
                    self.stepper.precision,
                    self.config.eval_batch_tokens,
                    stop_requested=self.stop.is_set,
                    progress=bar.update,
                )
        finally:
            bar.close()

    # The end

    def _finish(self) -> int:
        """Leave the final model where the Hugging Face Trainer would, and report it. **Collective.**"""
        self.profiler.finish(self.journal.report)  # early stopping ends a run before its last step
        self.saver.settle()
        takes_best = self.config.load_best_model_at_end and bool(self.best.step)
        if takes_best:
            self.saver.load_best(self.best.step)
        self.stepper.average.finish(into_model=not takes_best)
        final_task = self._final_task(self.best.step if takes_best else self.step)
        if self.config.do_predict and self.tables.test is not None and not self._is_pruned():
            predictions = self._predict(self.tables.test, "predicting")
            if self.comm.rank == 0:
                write_predictions(self.folder, final_task.predict_rows(predictions.outputs, self.tables.test, None))
        # Of the model that is left.
        sliced = self._score_validation(final_task)[1] if self.config.max_gap and not self._is_pruned() else []
        # A run that early stopping ended is finished at whatever step.
        facts: dict[str, Any] = {"step": self.total_steps, "stopped_at": self.step, "best": asdict(self.best)}
        facts |= {"rows_digest": self.tables.rows_digest}
        facts |= {"metrics": self.journal.metrics_entry(), "slices": [each.as_json() for each in sliced]}
        if self.pruner is not None:
            facts |= self.pruner.facts(self.best.score if takes_best else None)
        self.saver.write_final_model(task.to_bytes(final_task, self.config.row_tokens), facts)
        self.journal.report(closing_message(self.config, final_task.pipeline, self.score, self.best, self.peak_memory))
        return EXIT_PRUNED if self._is_pruned() else slices.judge(sliced, self.config.max_gap, self.journal.report)
