"""Prediction without ranks or files: rows in, dictionaries out."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import worker_threads
from ringtune.train.place import threads_of_rank
from ringtune.train.predict import config as settings_module
from ringtune.train.predict.clock import Clock
from ringtune.train.predict.confidence import sure_rows
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.inputs import choose_columns, in_chunks, open_source, rows_in_memory
from ringtune.train.predict.load import load_predictor, resolve
from ringtune.train.predict.parts import KEEP_ROWS
from ringtune.train.predict.predictor import Predictor, shown_columns
from ringtune.train.predict.writer import rows_of
from ringtune.train.source import Source, refuse_errors


def stream(model_name_or_path: str, input: Any, **settings: Any) -> Iterator[dict[str, Any]]:
    """Give the predictions of an input, in order; see `ringtune.train.predict.predict`."""
    is_named = isinstance(input, (str, Path))
    config = PredictConfig(
        model_name_or_path=model_name_or_path, input=str(input) if is_named else "", output="", **settings
    )
    settings_module.check(config)
    if config.reads_stdin:
        raise UsageError("input", "- is stdin, which only the command reads", legal="a file or a data set")
    config = resolve(config)
    predictor = load_predictor(
        config, torch.device("cuda" if torch.cuda.is_available() and not config.use_cpu else "cpu")
    )
    task = predictor.task
    source = open_source(config, task) if is_named else rows_in_memory(input, config, task)
    chunks = in_chunks(source.read(choose_columns(source, config, task)))
    predicted = _predicted(predictor, _checked(chunks, source, config), _num_threads(config))
    return itertools.chain.from_iterable(
        rows_of(sure_rows(each, task, config.min_confidence, config.top_k)) for each in predicted
    )


def _num_threads(config: PredictConfig) -> int:
    return threads_of_rank(
        config.num_threads, os.environ, len(os.sched_getaffinity(0)), os.cpu_count() or 1, local_size=1
    )


def _checked(chunks: Iterable[pa.RecordBatch], source: Source, config: PredictConfig) -> Iterator[pa.RecordBatch]:
    for chunk in chunks:
        if config.on_error == "stop":
            refuse_errors(chunk, source, todo=KEEP_ROWS)
        yield chunk


def _predicted(predictor: Predictor, chunks: Iterable[pa.RecordBatch], num_threads: int) -> Iterator[pa.RecordBatch]:
    """Predict chunks with several threads, a few ahead of the one that is given."""
    with worker_threads(num_threads) as pool:
        ahead: deque[Future[pa.RecordBatch]] = deque()
        for chunk in chunks:
            ahead.append(pool.submit(predictor.predict, chunk, Clock()))
            if len(ahead) > num_threads:
                yield shown_columns(ahead.popleft().result())
        while ahead:
            yield shown_columns(ahead.popleft().result())
