"""Prediction of every row of an input, once and in order, by any number of ranks; read `run` from top to bottom."""

from __future__ import annotations

import functools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ringtune.train import chunks, crew, model, predict_config, reader, report, sealed
from ringtune.train.clock import Clock
from ringtune.train.comm import Comm
from ringtune.train.contract import EXIT_FINISHED, EXIT_REQUEUE, StopRequested, UsageError
from ringtune.train.evaluate import worker_threads
from ringtune.train.parts import Identity, Spool, Workplace, error_rows, read_part
from ringtune.train.place import take_places, threads_of_rank, use_threads
from ringtune.train.predict_config import PredictConfig
from ringtune.train.predictor import SCORE_LABEL, Predictor, scored_rows, shown_columns
from ringtune.train.progress import Progress
from ringtune.train.rundir import write_text
from ringtune.train.step import Precision
from ringtune.train.stop import StopWatch
from ringtune.train.tokens import tokenizer_digest
from ringtune.train.writer import rows_of

Tell = Callable[[object], None]
THREADS_PER_GPU = 2  # one prepares a chunk while the other's is computed


@dataclass(frozen=True)
class Job:
    """What rank 0 found and made ready, told to all ranks."""

    spool: Path
    num_rows: int
    num_chunks: int
    todo: tuple[int, ...]  # chunks that have no part yet
    rows_done: int  # rows of those that have
    place: str  # what a row's line follows in messages
    reading_s: float  # that rank 0 took to read the input


def run(config: PredictConfig, comm: Comm, stop: StopWatch, *, dry_run: bool = False) -> int:
    """Predict as the configuration says and return the exit code. **Collective.**"""
    tell: Tell = functools.partial(print, flush=True) if comm.rank == 0 else _silent
    started = time.monotonic()
    num_threads = use_threads(config.num_threads, comm.local_size)
    device = take_places(comm, stop, tell)
    if device.type != "cpu":
        num_threads = THREADS_PER_GPU
    workplace = Workplace(Path(config.output))  # only rank 0 does more with it than to write parts
    try:
        config = comm.share(
            comm.work_together(lambda: _settle(config, workplace) if comm.rank == 0 else None, stop, "predict/config"),
            "predict/settled",
        )
        predictor = comm.work_together(lambda: _load(config, device), stop, "predict/model")
        digests = _same_model(predictor, comm)
        tell(_describe(config, predictor))
        if dry_run:
            comm.work_together(lambda: _check_input(config, tell) if comm.rank == 0 else None, stop, "predict/check")
            tell("dry run: everything checked, nothing predicted or written")
            return EXIT_FINISHED

        def prepare() -> Job | None:
            return _prepare(config, predictor, digests, workplace, stop, tell) if comm.rank == 0 else None

        job = comm.share(comm.work_together(prepare, stop, "predict/prepare"), "predict/job")
        bar = Progress(
            job.num_rows,
            "predicting",
            initial=job.rows_done,
            unit="rows",
            shown=comm.rank == 0 and not config.disable_tqdm,
        )
        the_crew = crew.Crew(predictor, workplace.folder, job.spool, job.todo, num_threads, comm, stop, bar)
        comm.work_together(
            the_crew.work, stop, "predict/work", meanwhile=the_crew.exchange, every_s=the_crew.counter.every_s
        )
        the_crew.exchange()
        bar.close()
        efforts = comm.gather_values(the_crew.effort(), "predict/efforts")

        def finish() -> None:
            if comm.rank == 0:
                _finish(config, job, workplace, predictor, efforts, started, stop, tell)

        # A watch of its own, that nobody asks: what is finished when a stop comes is finished, not stopped.
        comm.work_together(finish, StopWatch(), "predict/finish")
        return EXIT_FINISHED
    except StopRequested:
        tell("stopped on request; the finished parts are kept, and the same command does the rest")
        return EXIT_REQUEUE
    finally:
        workplace.release()


def predict(model_name_or_path: str, input: str, **settings: Any) -> Iterator[dict[str, Any]]:
    """Give the rows that ``ringtune-predict`` writes, as dictionaries, one after the other; without ranks or files.

    The settings are those of PredictConfig. Memory stays flat: a few chunks of rows are held at a time. Raises UsageError.
    """
    config = PredictConfig(model_name_or_path=str(model_name_or_path), input=str(input), output="", **settings)
    predict_config.check(config)
    if config.reads_stdin:
        raise UsageError("input", "- is stdin, which only the command reads", legal="a file or a data set")
    config = predict_config.resolve(config, predict_config.settings_of_run(config.model_name_or_path))
    predictor = _load(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    source = reader.open_source(config)
    rows = source.read(reader.choose_columns(source, config))
    num_threads = threads_of_rank(config.num_threads, os.environ, len(os.sched_getaffinity(0)), os.cpu_count() or 1, 1)
    with worker_threads(num_threads) as pool:
        ahead: deque[Any] = deque()
        for chunk in reader.in_chunks(rows):
            if config.on_error == "stop":
                reader.refuse_errors(chunk, source)
            ahead.append(pool.submit(predictor.predict, chunk, Clock()))
            if len(ahead) > num_threads:
                yield from rows_of(shown_columns(ahead.popleft().result()))
        while ahead:
            yield from rows_of(shown_columns(ahead.popleft().result()))


def _silent(words: object) -> None:
    """Say nothing: only rank 0 talks."""


def _settle(config: PredictConfig, workplace: Workplace) -> PredictConfig:
    """Return the configuration with all that was left open filled in. Raises UsageError for an output one cannot write."""
    workplace.look(config)
    if config.reads_stdin and "OMPI_COMM_WORLD_SIZE" in os.environ:
        # Open MPI 5.0.11 hands stdin to rank 0 but never its end: reading would wait for ever.
        raise UsageError(
            "--input -",
            "under mpirun stdin has no end",
            legal="a file, or no launcher, or horovodrun --gloo",
            todo="write the rows to a file first",
        )
    return predict_config.resolve(config, predict_config.settings_of_run(config.model_name_or_path))


def _load(config: PredictConfig, device: torch.device) -> Predictor:
    network = model.load_classifier(config.model_name_or_path)
    tokenizer = model.load_tokenizer(config.model_name_or_path)
    autocast = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
    return Predictor(network.to(device), tokenizer, config, Precision(device, autocast))


def _same_model(predictor: Predictor, comm: Comm) -> dict[str, str]:
    """Return the digests of what predicts. Raises UsageError, on every rank alike, if ranks read different models."""
    mine = {
        "model": model.state_digest(predictor.model.state_dict()) + repr(predictor.classes),
        "tokenizer": tokenizer_digest(predictor.tokenizer),
        "software": " ".join(
            f"{name} {metadata.version(name)}" for name in ("ringtune", "torch", "transformers", "tokenizers")
        ),
    }
    digests = comm.gather_values(mine, "predict/digests")
    odd = [rank for rank, each in enumerate(digests) if each != digests[0]]
    if odd:
        raise UsageError(
            "model",
            f"rank(s) {odd} read another model than rank 0",
            legal="the same files on every host",
            todo="check --model_name_or_path on each host",
        )
    return mine


def _describe(config: PredictConfig, predictor: Predictor) -> str:
    what = f"classes {', '.join(predictor.classes)}" if predictor.classes else "a number"
    precision = "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32"
    return (
        f"model {config.model_name_or_path}: {what}; {precision}, rows of {predictor.max_seq_length} tokens at most, batches of "
        f"{config.batch_tokens}"
    )


def _check_input(config: PredictConfig, tell: Tell) -> None:
    if config.reads_stdin:
        tell("input: stdin, which a dry run does not read")
        return
    source = reader.open_source(config)
    _tell_columns(reader.choose_columns(source, config), source, tell)


def _tell_columns(columns: reader.Columns, source: reader.Source, tell: Tell) -> None:
    label = f"label {columns.label}" if columns.label else "no label"
    tell(f"input {source.where}: text {', '.join(columns.text)}; {label}; kept {', '.join(columns.kept) or 'nothing'}")


def _prepare(
    config: PredictConfig,
    predictor: Predictor,
    digests: dict[str, str],
    workplace: Workplace,
    stop: StopWatch,
    tell: Tell,
) -> Job:
    """Open the folder of parts and put the input's rows there, or find both. **Rank 0 only.**"""
    workplace.lock.acquire()
    sealed.clean_stale(workplace.folder)
    before = time.monotonic()
    source = reader.open_source(config, workplace.copy_stdin() if config.reads_stdin else None)
    columns = reader.choose_columns(source, config)
    _tell_columns(columns, source, tell)
    settings = {**asdict(config), "max_seq_length": predictor.max_seq_length}
    identity = Identity(settings, {**digests, "input": source.digest})
    goes_on = workplace.check_identity(identity, overwrite=config.overwrite_output)
    if not goes_on:
        workplace.clear()
    spool_path = workplace.spool(source, columns, config, stop.is_set)
    reading_s = time.monotonic() - before
    if not goes_on:
        workplace.sign(identity)
    spool = Spool(spool_path)
    todo = chunks.largest_first(workplace.missing_chunks(spool.num_chunks, tell))
    rows_done = spool.num_rows - sum(spool.rows_of_chunk(chunk) for chunk in todo)
    tell(
        f"{spool.num_rows} rows in {spool.num_chunks} chunks"
        + (f"; {rows_done} rows are predicted already" if goes_on else "")
    )
    return Job(spool_path, spool.num_rows, spool.num_chunks, tuple(todo), rows_done, source.place(""), reading_s)


def _finish(
    config: PredictConfig,
    job: Job,
    workplace: Workplace,
    predictor: Predictor,
    efforts: Sequence[crew.Effort],
    started: float,
    stop: StopWatch,
    tell: Tell,
) -> None:
    """Join the parts, say how it went, and only then remove them: a kill loses neither. **Rank 0 only.**"""
    paths = workplace.part_paths(job.num_chunks)
    before = time.monotonic()
    workplace.join(paths, overwrite=config.overwrite_output, should_stop=stop.is_set)
    tell(crew.table(efforts))
    joining_s = time.monotonic() - before
    num_errors = _tell_errors(paths, job, tell)
    scores = None
    if SCORE_LABEL in read_part(paths[0]).schema.names:
        scores = report.score(lambda: (scored_rows(read_part(path)) for path in paths), predictor.classes)
        _tell_scores(scores, job, tell)
    elapsed_s = time.monotonic() - started
    if config.report is not None:
        facts = {
            "model": config.model_name_or_path,
            "input": config.input,
            "output": config.output,
            "num_rows": job.num_rows,
            "num_errors": num_errors,
            "elapsed_s": elapsed_s,
            "reading_input_s": job.reading_s,
            "joining_parts_s": joining_s,
            "scores": scores.as_json() if scores is not None else None,
            "ranks": [asdict(each) for each in efforts],
        }
        write_text(Path(config.report), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    speed = sum(each.num_rows for each in efforts) / elapsed_s
    tell(f"rank 0 read the input in {job.reading_s:.1f} s and joined the parts in {joining_s:.1f} s")
    tell(f"{job.num_rows} rows, {num_errors} with an error, in {config.output}; {elapsed_s:.1f} s, {speed:.1f} rows/s")
    workplace.remove()


def _tell_errors(paths: Sequence[Path], job: Job, tell: Tell) -> int:
    """Say how many rows have an error, and the first of them; return their number."""
    num_errors = 0
    for chunk, row, error in error_rows(paths):
        num_errors += 1
        if num_errors == 1:
            line = Spool(job.spool).read(chunk).column("line")[row].as_py()
            tell(f"the first row with an error is {job.place}{line}: {error}")
    return num_errors


def _tell_scores(scores: report.Scores | None, job: Job, tell: Tell) -> None:
    if scores is None:
        tell("no row has a label that the model knows: no scores")
        return
    unlabelled = job.num_rows - scores.num_rows
    without = (
        f"; {unlabelled} rows without a label that the model knows, or with an error, do not count"
        if unlabelled
        else ""
    )
    tell(", ".join(f"{name} {value:.4f}" for name, value in scores.scores.items()) + without)
    if scores.classes:
        tell(report.confusion_table(scores))
