"""One run from its configuration to its exit code: open, prepare, train, finish."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import (
    adapter,
    adapter_settings,
    batching,
    checkpoint,
    direction,
    gap,
    init_from,
    interval,
    keep_answers,
    keep_close,
    measures,
    model,
    model_tokens,
    objective,
    pruning,
    replay,
    resumed,
    rundir,
    slices,
    task,
    trainable,
    training_rows,
)
from ringtune.train.average import Average
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig
from ringtune.train.contract import EXIT_FINISHED, TASK_FILE, UsageError
from ringtune.train.device import choose_kernels
from ringtune.train.digest import state_digest
from ringtune.train.due import Schedule
from ringtune.train.loop import Loop
from ringtune.train.measures import Measure
from ringtune.train.opening import Opening, open_run, sign
from ringtune.train.optimizer import make_optimizer, restore_optimizer
from ringtune.train.order import DataOrder
from ringtune.train.place import take_places, use_threads
from ringtune.train.precision import autocast_format, report_slow_format
from ringtune.train.reduction import choose_reducer, restore_reducer
from ringtune.train.saver import Saver
from ringtune.train.scores import deciding_score
from ringtune.train.step import Precision, Stepper
from ringtune.train.stop import StopFlag
from ringtune.train.tables import Tables, prepare
from ringtune.train.task.sequence import LABELS
from ringtune.train.tokenizer import Fitted, open_tokenizer
from ringtune.train.tokens import tokenizer_digest


@dataclass(frozen=True)
class Inputs:
    """What a run computes with, beside the model."""

    config: TrainConfig
    batching: batching.Batching
    tables: Tables
    tokenizer: Any
    order: DataOrder
    total_steps: int
    named_scores: Mapping[str, Measure]  # of --metrics


def run(config: TrainConfig, comm: Comm, stop: StopFlag, *, dry_run: bool = False) -> int:
    """Train as the configuration says and return the exit code. **Collective.**"""
    # In exact mode one thread unless set otherwise: their number is part of the sums.
    use_threads(config.num_threads or (1 if config.mode == "exact" else None), comm.local_size)
    report: Callable[..., None] = print if comm.rank == 0 else _silent
    device = take_places(comm, stop, report, use_cpu=config.use_cpu, share_gpus=config.share_gpus)
    report_slow_format(autocast_format(config), device, comm, report)
    choose_kernels(device, exact=config.mode == "exact", tf32=config.tf32)
    lock = rundir.RunLock(Path(config.output_dir))  # taken by rank 0 alone
    try:
        config, tokenizer = _open_model(config, comm, stop, report)
        opening = comm.on_rank_0(lambda: open_run(config, comm.size, lock, report, dry_run=dry_run), stop, "run/open")
        inputs = _prepare(opening, tokenizer, comm, stop)
        _report_plan(inputs, comm.size, report)
        _require_splits(inputs, report)
        pruning.require_scores(opening.trial, evaluates=config.do_eval and bool(inputs.tables.validation))
        if opening.finished_step == inputs.total_steps or opening.done > inputs.total_steps:
            _report_nothing_to_do(config, opening, inputs.total_steps, report)
            folder = Path(config.output_dir)
            return comm.on_rank_0(lambda: pruning.judge_finished(folder, config.max_gap, report), stop, "run/finished")
        if opening.checkpoint is not None:
            report(f"going on from {opening.checkpoint}")

        def assemble() -> Loop:
            return _assemble(inputs, opening, comm, stop, device)

        loop = comm.work_together(assemble, stop, "run/model")
        loop.pruner = pruning.choose(opening.trial, comm, loop.score, greater_is_better=loop.greater_is_better)
        _refuse_unequal_replicas(loop, comm)
        if dry_run:
            report("dry run: everything checked, nothing trained or written")
            return EXIT_FINISHED
        if comm.rank == 0:
            sign(Path(config.output_dir), inputs.config, opening, report)
        loop.open_files()
        return loop.run()
    finally:
        lock.release()


def _report_nothing_to_do(config: TrainConfig, opening: Opening, total_steps: int, report: Callable[..., None]) -> None:
    """Report a run that has all the steps that are asked for, or more."""
    how = "--num_train_epochs, --max_steps or --overwrite_output_dir make it train more"
    if opening.finished_step == total_steps:
        report(f"{config.output_dir}: finished already at step {total_steps}; {how}")
    else:
        report(f"{config.output_dir}: already at step {opening.done} of {total_steps}: nothing to train; {how}")


def _silent(*words: object) -> None:
    """Print nothing: only rank 0 reports."""


def _open_model(
    config: TrainConfig, comm: Comm, stop: StopFlag, report: Callable[[str], None]
) -> tuple[TrainConfig, Any]:
    """Return the settings with the length of rows that the model takes, and its tokenizer. **Collective.**

    What cannot be read of the model is refused here, before any row is.
    """
    name = config.model_name_or_path

    def open_it() -> Fitted:
        adapter_settings.require_usable(config)
        init_from.require_usable(config)
        model.require_readable(name, allow_pickle=config.allow_pickle)
        fitted = open_tokenizer(name, report)
        if not config.resize_token_embeddings:
            model_tokens.require_known_tokens(fitted.num_known_tokens, len(fitted.tokenizer), model_tokens.GROW)
        return fitted

    fitted = comm.work_together(open_it, stop, "run/tokenizer")
    length = comm.on_rank_0(lambda: fitted.limit.settle(config.max_seq_length, report), stop, "run/length")
    return dataclasses.replace(config, max_seq_length=length), fitted.tokenizer


def _prepare(opening: Opening, tokenizer: Any, comm: Comm, stop: StopFlag) -> Inputs:
    """Read and tokenise the rows, and count the steps. **Collective.**"""
    config = opening.config
    tables = prepare(config, tokenizer, comm, stop)
    tables = dataclasses.replace(tables, task=task.settle(tables.task, config))
    labels = tables.train.feature_columns.get(LABELS) if config.balanced_sampling else None
    order = replay.order_of(config, tables.num_new, tables.num_replayed, opening.batching.global_batch_size, labels)
    total_steps = config.max_steps
    if total_steps <= 0:
        total_steps = math.ceil(config.num_train_epochs * order.steps_per_epoch)
    interval.require_within(config.profile_steps, "--profile_steps", total_steps)
    named = measures.choose(config.metrics, tables.task, config.metric_for_best_model)
    gap.require_known(gap.bounds(config.max_gap), (*tables.task.score_names, *named))
    return Inputs(config, opening.batching, tables, tokenizer, order, total_steps, named)


def _report_plan(inputs: Inputs, world_size: int, report: Callable[..., None]) -> None:
    order = inputs.order
    for line in inputs.tables.report:
        report(line)
    report(
        f"{order.num_rows} training rows, {order.steps_per_epoch} steps per epoch, {inputs.total_steps} steps of "
        f"{order.global_batch_size} rows{order.note} in {inputs.batching.num_shards} shards over {world_size} rank(s), "
        f"{inputs.config.mode} mode"
    )


def _require_splits(inputs: Inputs, report: Callable[..., None]) -> None:
    """Raise UsageError if rows are missing that a setting asks for."""
    config, tables = inputs.config, inputs.tables
    slices.require_comparable(tables.slices, config.max_gap)
    if config.do_eval and not tables.validation:
        if config.load_best_model_at_end or config.early_stopping_patience:
            raise UsageError(
                "data",
                "there are no validation rows to choose the best model by",
                legal="--validation_file or a data set with a validation split",
            )
        report("no validation rows: nothing will be evaluated")
    if tables.task.has_several_labels:
        report(task.how_labels_are_given(tables.task, fits=bool(config.do_eval and tables.validation)))
    if config.do_predict and tables.test is None:
        raise UsageError(
            "--do_predict",
            "there are no test rows",
            legal="--test_file or a data set with a test split",
            todo="name one, or leave the flag out",
        )


def _assemble(inputs: Inputs, opening: Opening, comm: Comm, stop: StopFlag, device: torch.device) -> Loop:
    """Build model, optimizer and loop on this rank, restored from a checkpoint if there is one to go on from."""
    config, tables, found = inputs.config, inputs.tables, opening.checkpoint
    report: Callable[..., None] = print if comm.rank == 0 else _silent
    network = model.load_model(
        config,
        tables.task,
        len(inputs.tokenizer),
        report if found is None else _silent,
        pad_token_id=inputs.tokenizer.pad_token_id,
    )
    splits = [tables.train, *tables.validation.values(), *([tables.test] if tables.test is not None else [])]
    model_tokens.refuse_other_tokens(network, tables.task, splits)
    for line in trainable.choose(network, tables.task, tables.train, config):
        report(line)
    snapshot = None if found is None else _restore(network, inputs, found)
    before = None if snapshot is None else snapshot.state
    network.to(device)
    updates, average = make_optimizer(network, config), Average.of(network, config.ema_decay)
    if snapshot is not None:
        restore_optimizer(network, updates, average.restore(snapshot.optimizer, str(found)), str(found))
    stepper = Stepper(
        network,
        updates,
        choose_reducer(config, network, comm, inputs.batching.num_shards, report),
        comm,
        tables.task,
        tables.train,
        Precision(device, autocast_format(config)),
        seed=config.seed,
        max_grad_norm=config.max_grad_norm,
        objective=_objective(inputs, device, report),
        average=average,
        start=keep_close.read(config, network, before, report),
        earlier=keep_answers.read(config, device, before, report),
    )
    if snapshot is not None and found is not None:
        restore_reducer(stepper.reducer, found, snapshot.state.step, comm, report)
    state = resumed.without_lost_best(snapshot.state, opening.best_is_lost, report) if snapshot is not None else None
    steps = resumed.schedule_steps(state, config, inputs.total_steps, report)
    return _loop(inputs, stepper, stop, state, steps)


def _restore(network: torch.nn.Module, inputs: Inputs, found: Path) -> checkpoint.Loaded:
    """Put the weights of a checkpoint back and return it. Raises UsageError for one of other rows or another model."""
    snapshot = checkpoint.load_checkpoint(found)
    resumed.refuse_other_data(snapshot.state, inputs.tables.digest, inputs.tokenizer, str(found))
    adapter.require_saved(network, found)
    model.restore_model(network, snapshot.model, str(found))
    return snapshot


def _objective(inputs: Inputs, device: torch.device, report: Callable[[str], None]) -> objective.Objective:
    """Return what a step minimises. Raises UsageError."""
    shares = training_rows.shares(inputs.config, inputs.tables.parts, inputs.order)
    return objective.choose(inputs.config, inputs.tables.task, inputs.tables.train, device, report, shares)


def _loop(
    inputs: Inputs, stepper: Stepper, stop: StopFlag, state: checkpoint.RunState | None, schedule_steps: int
) -> Loop:
    config, tables = inputs.config, inputs.tables
    files = {
        **model.pretrained_files(stepper.model, inputs.tokenizer),
        TASK_FILE: task.to_bytes(tables.task, config.row_tokens),
    }
    named = inputs.named_scores
    score = deciding_score(tables.task, config.task_name, config.metric_for_best_model, named)
    evaluates = config.do_eval and bool(tables.validation)
    return Loop(
        config=config,
        tables=tables,
        tokenizer_digest=tokenizer_digest(inputs.tokenizer),
        order=inputs.order,
        num_shards=inputs.batching.num_shards,
        due=Schedule(config, inputs.total_steps, inputs.order.steps_per_epoch, evaluates),
        stepper=stepper,
        saver=Saver(
            Path(config.output_dir), stepper, files, keep=config.save_total_limit, merges=config.save_merged_model
        ),
        stop=stop,
        named_scores=named,
        score=score,
        greater_is_better=direction.greater_is_better(config.greater_is_better, score),
        resumed=state,
        schedule_steps=schedule_steps,
    )


def _refuse_unequal_replicas(loop: Loop, comm: Comm) -> None:
    """Compare the parameters of all ranks before the first step; what differs now would differ for ever."""
    digests = comm.gather_values(state_digest(loop.saver.tensors()), "run/replicas") if comm.size > 1 else []
    odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if odd:
        raise UsageError(
            "model",
            f"rank(s) {odd} start from other parameters than rank 0",
            legal="the same files and versions on every host",
            todo="check --model_name_or_path on each host",
        )
