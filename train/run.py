"""One run from its configuration to its exit code: open, prepare, train, finish."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ringtune.train import batching, checkpoint, model, rundir
from ringtune.train.comm import Comm
from ringtune.train.config import TrainConfig, refuse_changes, to_yaml
from ringtune.train.contract import CHECKPOINT_PREFIX, CONFIG_FILE, EXIT_FINISHED, FINISHED_FILE, UsageError, holds_run
from ringtune.train.loop import Loop
from ringtune.train.order import DataOrder
from ringtune.train.place import take_places, use_threads
from ringtune.train.scores import LOWER_IS_BETTER, deciding_score
from ringtune.train.step import Precision
from ringtune.train.stop import StopWatch
from ringtune.train.tables import Tables, prepare
from ringtune.train.tokens import tokenizer_digest

#: What a run needs of the state in a checkpoint (written by `Loop._save`) to go on from it.
STATE_FIELDS = ("step", "total_steps", "best", "loss_scaler", "config", "data_digest", "tokenizer_digest")


@dataclass(frozen=True)
class Opening:
    """What rank 0 found in the output folder, told to all ranks."""

    config: TrainConfig  # with the batch sizes of this run filled in
    batching: batching.Batching
    checkpoint: Path | None  # to go on from
    finished_step: int  # 0 unless the run has finished


def run(config: TrainConfig, comm: Comm, stop: StopWatch, *, dry_run: bool = False) -> int:
    """Train as the configuration says and return the exit code. **Collective.**"""
    # In exact mode one thread unless said otherwise: their number is part of the sums.
    use_threads(config.num_threads or (1 if config.mode == "exact" else None), comm.local_size)
    _use_deterministic_kernels(config)
    tell = print if comm.rank == 0 else _silent
    device = take_places(comm, stop, tell)

    guard = rundir.RunLock(Path(config.output_dir)) if comm.rank == 0 else None
    try:
        opening = comm.share(
            comm.work_together(lambda: _open(config, comm.size, guard, tell, dry_run=dry_run), stop, "run/open"),
            "run/opening",
        )
        config = opening.config
        tokenizer = comm.work_together(lambda: model.load_tokenizer(config.model_name_or_path), stop, "run/tokenizer")
        tables = prepare(config, tokenizer, comm, stop)
        order = DataOrder(config.seed, tables.train.num_rows, opening.batching.global_batch_size)
        total_steps = (
            config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * order.steps_per_epoch)
        )
        tell(
            f"{tables.train.num_rows} training rows, {order.steps_per_epoch} steps per epoch, {total_steps} steps of "
            f"{order.global_batch_size} rows in {opening.batching.num_shards} shards over {comm.size} rank(s), {config.mode} mode"
        )
        if config.do_eval and not tables.validation:
            if config.load_best_model_at_end or config.early_stopping_patience:
                raise UsageError(
                    "data",
                    "there are no validation rows to choose the best model by",
                    legal="--validation_file or a data set with a validation split",
                )
            tell("no validation rows: nothing will be evaluated")
        if config.do_predict and tables.test is None:
            raise UsageError(
                "--do_predict",
                "there are no test rows",
                legal="--test_file or a data set with a test split",
                todo="name one, or leave the flag out",
            )
        if dry_run:
            tell("dry run: everything checked, nothing trained or written")
            return EXIT_FINISHED
        if opening.finished_step >= total_steps:
            tell(
                f"{config.output_dir}: finished already at step {opening.finished_step}; "
                "--num_train_epochs or --overwrite_output_dir make it train more"
            )
            return EXIT_FINISHED

        loop = comm.work_together(
            lambda: _assemble(config, opening, tables, tokenizer, order, total_steps, comm, stop, device),
            stop,
            "run/model",
        )
        _refuse_unequal_replicas(loop, comm)
        if guard is not None:
            _sign(Path(config.output_dir), config, fresh=opening.checkpoint is None)
        return loop.run()
    finally:
        if guard is not None:
            guard.release()


def _sign(folder: Path, config: TrainConfig, *, fresh: bool) -> None:
    """Make the folder this run's; only now, when nothing more can be wrong, does anything of an earlier run go."""
    if fresh:
        rundir.clear(folder)
    (folder / FINISHED_FILE).unlink(missing_ok=True)
    # To overwrite and to resume are acts, not properties of the run: whoever starts it again from its file goes on.
    kept = dataclasses.replace(config, overwrite_output_dir=False, resume_from_checkpoint=None)
    rundir.write_text(folder / CONFIG_FILE, to_yaml(kept))


def _silent(*words: object) -> None:
    """Say nothing: only rank 0 talks."""


def _use_deterministic_kernels(config: TrainConfig) -> None:
    """In exact mode let no GPU kernel add in an order of its own (PyTorch's notes on reproducibility)."""
    if config.mode == "exact":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _saved_config(found: Path) -> Mapping[str, Any]:
    """Return the configuration in a checkpoint. Raises UsageError for one that another version has written."""
    state = checkpoint.load_state(found)
    missing = [name for name in STATE_FIELDS if name not in state]
    if missing:
        raise UsageError(
            str(found),
            f"its state has no {missing[0]}",
            legal="a checkpoint of this version of ringtune",
            todo="go on with the version that wrote it",
        )
    return dict(state["config"])


def _refuse_to_lose(folder: Path, findings: Sequence[checkpoint.Finding]) -> None:
    """Raise UsageError if there are checkpoints and none is whole: to start afresh would remove what may be restored."""
    damaged = [each for each in findings if each.path.name.startswith(CHECKPOINT_PREFIX)]
    if damaged:
        raise UsageError(
            f"--output_dir {folder}",
            f"none of its {len(damaged)} checkpoint(s) is whole: {damaged[0].path.name}: {damaged[0].reason}",
            legal="a whole one to go on from",
            todo="restore one, or begin anew with --overwrite_output_dir",
        )


def _open(
    config: TrainConfig, world_size: int, guard: rundir.RunLock | None, tell: Any, *, dry_run: bool
) -> Opening | None:
    """Look into the output folder and settle what this run is. **Rank 0 only**; changes nothing but an overwrite."""
    if guard is None:
        return None
    folder = Path(config.output_dir)
    existing = holds_run(folder)
    if not dry_run:
        guard.acquire()
    found: Path | None = None
    saved: Mapping[str, Any] | None = None
    if config.resume_from_checkpoint not in (None, "latest"):
        found = Path(str(config.resume_from_checkpoint))
        saved = _saved_config(found)
    elif existing and not config.overwrite_output_dir:
        found, stepped_over = checkpoint.find_latest(folder)
        for finding in stepped_over:
            tell(f"stepped over {finding.path}: {finding.reason}")
        if found is None:
            _refuse_to_lose(folder, stepped_over)
        saved = rundir.read_config(folder) if found is None else _saved_config(found)
    if config.resume_from_checkpoint == "latest" and found is None:
        raise UsageError(
            "--resume_from_checkpoint latest",
            f"{folder} has no whole checkpoint",
            legal="a folder with one",
            todo="leave the flag out to start anew",
        )
    if saved is not None:
        config = _take_over(config, saved)
        refuse_changes(saved, config)
    batch = batching.resolve(
        world_size,
        config.mode,
        config.global_batch_size,
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        config.num_shards,
    )
    config = dataclasses.replace(config, global_batch_size=batch.global_batch_size)
    if config.mode == "exact":
        config = dataclasses.replace(config, num_shards=batch.num_shards)
    if found is not None:
        tell(f"going on from {found}")
    finished = folder / FINISHED_FILE
    finished_step = 0
    if existing and not config.overwrite_output_dir and finished.exists():
        with suppress(OSError, ValueError, TypeError, KeyError):  # spoilt: the checkpoint says how far the run is
            finished_step = int(json.loads(finished.read_text())["step"])
    return Opening(config, batch, found, finished_step)


def _take_over(config: TrainConfig, saved: Mapping[str, Any]) -> TrainConfig:
    """Fill the batch sizes a rerun leaves open from the run it goes on with: these belong to the run, not the ranks."""
    changes: dict[str, Any] = {}
    if config.global_batch_size is None:
        changes["global_batch_size"] = saved.get("global_batch_size")
        # Given per rank, they held for the old world size; the product is what the run keeps.
        changes |= {"per_device_train_batch_size": None}
    if config.num_shards is None:
        changes["num_shards"] = saved.get("num_shards")
    return dataclasses.replace(config, **changes)


def _assemble(
    config: TrainConfig,
    opening: Opening,
    tables: Tables,
    tokenizer: Any,
    order: DataOrder,
    total_steps: int,
    comm: Comm,
    stop: StopWatch,
    device: torch.device,
) -> Loop:
    """Build model, optimizer and loop on this rank, restored from the checkpoint if there is one."""
    network = model.load_model(config, tables.task)
    model.refuse_other_tokens(network, [tables.train, *tables.validation.values(), *filter(None, [tables.test])])
    example = tables.train.batch([0])
    example.pop("labels", None)
    unused = model.freeze_unused(network, example)
    snapshot = None
    if opening.checkpoint is not None:
        snapshot = checkpoint.load_checkpoint(opening.checkpoint)
        _refuse_other_data(snapshot.state, tables, tokenizer, str(opening.checkpoint))
        model.restore_model(network, snapshot.model, str(opening.checkpoint))
    network.to(device)
    optimizer = model.make_optimizer(network, config)
    if snapshot is not None:
        model.restore_optimizer(network, optimizer, snapshot.tensors, str(opening.checkpoint))
    score = deciding_score(tables.task.kind, config.task_name, config.metric_for_best_model)
    greater = config.greater_is_better if config.greater_is_better is not None else score not in LOWER_IS_BETTER
    autocast = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
    if unused and comm.rank == 0:
        print(f"{len(unused)} parameters do not reach the loss and stay as they are: {', '.join(unused)}")
    return Loop(
        config=config,
        batching=opening.batching,
        tables=tables,
        tokenizer=tokenizer,
        order=order,
        total_steps=total_steps,
        network=network,
        optimizer=optimizer,
        comm=comm,
        stop=stop,
        precision=Precision(device, autocast),
        score=score,
        greater_is_better=greater,
        state=snapshot.state if snapshot is not None else None,
    )


def _refuse_other_data(state: Mapping[str, Any], tables: Tables, tokenizer: Any, where: str) -> None:
    for name, digest in (("data", tables.digest), ("tokenizer", tokenizer_digest(tokenizer))):
        if state[f"{name}_digest"] != digest:
            raise UsageError(
                where,
                f"the {name} is not what it was when the run started",
                legal=f"the same {name}, byte for byte",
                todo="put it back, or start a new run with another --output_dir",
            )


def _refuse_unequal_replicas(loop: Loop, comm: Comm) -> None:
    """Compare the parameters of all ranks before the first step; what differs now would differ for ever."""
    digests = comm.gather_values(model.state_digest(loop.tensors()), "run/replicas")
    odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if odd:
        raise UsageError(
            "model",
            f"rank(s) {odd} start from other parameters than rank 0",
            legal="the same files and versions on every host",
            todo="check --model_name_or_path on each host",
        )
