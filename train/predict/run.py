"""Prediction by all ranks of a job; read `run` from top to bottom."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from ringtune.train import chunks, measures, several, slices
from ringtune.train.comm import Comm
from ringtune.train.contract import EXIT_FINISHED, EXIT_REQUEUE, StopRequested, UsageError
from ringtune.train.device import processor_of
from ringtune.train.measures import Measure
from ringtune.train.place import take_places, use_threads
from ringtune.train.precision import autocast_format, report_slow_format
from ringtune.train.predict.confidence import sure_rows
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.identity import Identity
from ringtune.train.predict.inputs import choose_columns, open_source
from ringtune.train.predict.load import describe, load_predictor, require_same_model, resolve
from ringtune.train.predict.parts import PartsFolder, Spool
from ringtune.train.predict.predictor import Predictor
from ringtune.train.predict.report import Parts, coverage, report_no_scores, report_scores, write_report
from ringtune.train.predict.workers import Workers, WorkerStats, stats_table
from ringtune.train.predict.writer import KEPT, refuse_unwritable
from ringtune.train.progress import Progress
from ringtune.train.source import Place
from ringtune.train.stop import StopFlag

Report = Callable[[object], None]
SCORE_AGAIN = "the same command scores what is predicted already"
THREADS_PER_GPU = 2  # one prepares a chunk while the other's is computed


@dataclass(frozen=True)
class Prepared:
    """What rank 0 found and made ready, for all ranks."""

    spool: Path
    num_rows: int
    num_chunks: int
    todo: tuple[int, ...]  # chunks that have no part yet
    rows_done: int  # rows of those that have
    files: tuple[Place, ...]  # of the input, for messages
    identity: Identity
    reading_s: float  # that rank 0 took to read the input


def run(config: PredictConfig, comm: Comm, stop: StopFlag, *, dry_run: bool = False) -> int:
    """Predict as the configuration says and return the exit code. **Collective.**"""
    report: Report = functools.partial(print, flush=True) if comm.rank == 0 else _silent
    started = time.monotonic()
    num_threads = use_threads(config.num_threads, comm.local_size)
    device = take_places(comm, stop, report, use_cpu=config.use_cpu, sums=False)
    if device.type != "cpu":
        num_threads = THREADS_PER_GPU
    parts = PartsFolder(Path(config.output))  # all ranks write parts; only rank 0 does anything else with it
    try:
        config = comm.on_rank_0(lambda: _settle(config, parts), stop, "predict/settle")
        report_slow_format(autocast_format(config), device, comm, report)
        predictor = comm.work_together(lambda: load_predictor(config, device, report), stop, "predict/model")
        digests = require_same_model(predictor, comm)
        named = measures.choose(config.metrics, predictor.task, then=SCORE_AGAIN)
        report(describe(config, predictor))
        if dry_run:
            comm.on_rank_0(lambda: _check_input(config, predictor, report), stop, "predict/check")
            report("dry run: everything checked, nothing predicted or written")
            return EXIT_FINISHED
        prepared = comm.on_rank_0(
            lambda: _prepare(config, predictor, digests, parts, stop, report), stop, "predict/prepare"
        )
        if prepared is None:
            report(f"{config.output}: finished already; --overwrite_output predicts it again")
            return EXIT_FINISHED
        ranks = _predict(config, predictor, parts, prepared, num_threads, comm, stop)

        def finish() -> None:
            _finish(config, prepared, parts, predictor, named, ranks, started, stop, report)

        # With a flag of its own, that nobody sets: a stop ends the joining of parts, and nothing after it.
        comm.on_rank_0(finish, StopFlag(), "predict/finish")
        return EXIT_FINISHED
    except StopRequested:
        report("stopped on request; the finished parts are kept, and the same command does the rest")
        return EXIT_REQUEUE
    finally:
        parts.release()


def _silent(words: object) -> None:
    """Print nothing: only rank 0 reports."""


def _settle(config: PredictConfig, parts: PartsFolder) -> PredictConfig:
    """Return the settings with what was left open filled in. Raises UsageError for an output that cannot be written."""
    parts.check_output(config)
    if config.reads_stdin and "OMPI_COMM_WORLD_SIZE" in os.environ:
        # Open MPI 5.0.11 hands stdin to rank 0 but never its end: reading would wait for ever.
        raise UsageError(
            "--input -",
            "under mpirun stdin has no end",
            legal="a file, or no launcher, or horovodrun --gloo",
            todo="write the rows to a file first",
        )
    return resolve(config)


def _check_input(config: PredictConfig, predictor: Predictor, report: Report) -> None:
    if config.reads_stdin:
        report("input: stdin, which a dry run does not read")
        return
    source = open_source(config, predictor.task)
    columns = choose_columns(source, config, predictor.task)
    for line in (predictor.describe_columns(columns, source.names), *several.describe(source.files), *source.notes):
        report(f"input {source.where}: {line}")
    report_no_scores(config, columns, source, report)
    kept = {f"{KEPT}{name}": pa.nulls(0, source.types[name]) for name in columns.kept if name in source.types}
    refuse_unwritable(pa.RecordBatch.from_pydict(kept), Path(config.output).suffix.lower(), source.where)


def _prepare(
    config: PredictConfig,
    predictor: Predictor,
    digests: dict[str, str],
    parts: PartsFolder,
    stop: StopFlag,
    report: Report,
) -> Prepared | None:
    """Open the folder of parts and put the input's rows there, or find both; None if the output is there already.
    **Rank 0 only.**"""
    parts.lock.acquire()
    parts.remove_left_behind()
    before = time.monotonic()
    source = open_source(config, predictor.task, parts.copy_stdin() if config.reads_stdin else None)
    columns = choose_columns(source, config, predictor.task)
    report(f"input {source.where}: {predictor.describe_columns(columns, source.names)}")
    report_no_scores(config, columns, source, report)
    settings = {**asdict(config), "max_seq_length": predictor.max_seq_length}
    identity = Identity(settings, {**digests, "input": source.digest}, processor_of(predictor.precision.device))
    goes_on = parts.check_identity(identity, report, overwrite=config.overwrite_output)
    if not goes_on:
        if parts.has_finished(identity, overwrite=config.overwrite_output):
            return None
        parts.clear()
    spool_path = parts.spool(source, columns, config, stop.is_set, report)
    reading_s = time.monotonic() - before
    if not goes_on:
        parts.sign(identity)
    spool = Spool(spool_path)
    if config.slice_by:
        slices.columns_of(spool, source.where)  # refuses one of too many values now, not when all is predicted
    todo = chunks.largest_first(parts.missing_chunks(spool.num_batches, report))
    rows_done = spool.num_rows - sum(spool.rows_of_chunk(chunk) for chunk in todo)
    for line in (*several.describe(source.files, spool.count_files(len(source.files))), *source.notes):
        report(f"input {source.where}: {line}")
    already = f"; {rows_done} rows are predicted already" if goes_on else ""
    report(f"{spool.num_rows} rows in {spool.num_batches} chunks{already}")
    return Prepared(
        spool_path, spool.num_rows, spool.num_batches, tuple(todo), rows_done, source.files, identity, reading_s
    )


def _predict(
    config: PredictConfig,
    predictor: Predictor,
    parts: PartsFolder,
    prepared: Prepared,
    num_threads: int,
    comm: Comm,
    stop: StopFlag,
) -> list[WorkerStats]:
    """Predict all chunks that have no part; return what each rank did. **Collective.**"""
    shown = comm.rank == 0 and not config.disable_tqdm
    bar = Progress(prepared.num_rows, "predicting", initial=prepared.rows_done, unit="rows", shown=shown)
    workers = Workers(predictor, parts.folder, prepared.spool, prepared.todo, num_threads, comm, stop, bar)
    workers.run()
    bar.close()
    return comm.gather_values(workers.stats(), "predict/stats")


def _finish(
    config: PredictConfig,
    prepared: Prepared,
    parts: PartsFolder,
    predictor: Predictor,
    named: Mapping[str, Measure],
    ranks: Sequence[WorkerStats],
    started: float,
    stop: StopFlag,
    report: Report,
) -> None:
    """Join the parts, report how it went, and only then remove them: a kill loses neither. **Rank 0 only.**"""
    paths = parts.part_paths(prepared.num_chunks)
    predicted = Parts(paths, prepared.spool, prepared.files, prepared.num_rows)
    before = time.monotonic()
    choose = functools.partial(sure_rows, task=predictor.task, min_confidence=config.min_confidence, top_k=config.top_k)
    num_written = parts.join(paths, overwrite=config.overwrite_output, should_stop=stop.is_set, choose=choose)
    report(stats_table(ranks))
    joining_s = time.monotonic() - before
    num_errors = predicted.report_errors(report)
    scores = predicted.scores(predictor.task, named)
    sliced = predicted.by_slice(predictor.task, named) if config.slice_by and scores is not None else []
    if predicted.has_labels:
        report_scores(scores, sliced, prepared.num_rows, report)
    elapsed_s = time.monotonic() - started
    facts = {
        "num_rows": prepared.num_rows,
        "num_errors": num_errors,
        "elapsed_s": elapsed_s,
        "reading_input_s": prepared.reading_s,
        "joining_parts_s": joining_s,
    }
    covered, words = coverage(config.min_confidence, num_written, prepared.num_rows)
    write_report(config, facts | covered, scores, sliced, ranks)
    speed = sum(each.num_rows for each in ranks) / elapsed_s
    report(f"rank 0 read the input in {prepared.reading_s:.1f} s and joined the parts in {joining_s:.1f} s")
    report(
        f"{prepared.num_rows} rows, {num_errors} with an error, {words}in {config.output}; "
        f"{elapsed_s:.1f} s, {speed:.1f} rows/s"
    )
    parts.sign_output(prepared.identity)
    parts.remove()
