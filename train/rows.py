"""Rows of a source on disk, as an Arrow file: read once from the source, then by batch as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from ringtune.train.contract import StopRequested


def write_rows(path: Path, batches: Iterable[pa.RecordBatch], should_stop: Callable[[], bool]) -> int:
    """Write batches of rows to a new file, one by one; return their number. Raises StopRequested between batches."""
    num_batches = 0
    file = None
    with pa.OSFile(str(path), "wb") as sink:
        for batch in batches:
            if should_stop():
                raise StopRequested
            file = file or pa.ipc.new_file(sink, batch.schema)
            file.write_batch(batch)
            num_batches += 1
        if file is not None:
            file.close()
    return num_batches


def texts_of(batch: pa.RecordBatch) -> list[list[str]]:
    """Return the texts of usable rows: a list for each text column."""
    return [batch.column(name).to_pylist() for name in batch.schema.names if name.startswith("text/")]


class RowFile:
    """Rows that `write_rows` wrote. It holds one batch in memory; threads open one file each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = pa.ipc.open_file(pa.OSFile(str(path)))  # not mapped: its pages would count as this rank's memory
        self.num_batches = self.file.num_record_batches

    def read(self, number: int) -> pa.RecordBatch:
        """Return one batch."""
        return self.file.get_batch(number)

    def count_files(self, num_files: int) -> list[int]:
        """Return how many rows come from each file of their source; reads that one column."""
        total = np.zeros(num_files, dtype=np.int64)
        options = pa.ipc.IpcReadOptions(included_fields=[self.file.schema.get_field_index("file")])
        with pa.OSFile(str(self.path)) as stream:
            narrow = pa.ipc.open_file(stream, options=options)
            for number in range(self.num_batches):
                total += np.bincount(narrow.get_batch(number).column(0).to_numpy(), minlength=num_files)
        return [int(each) for each in total]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return map(self.read, range(self.num_batches))


def sample(batches: Iterable[pa.RecordBatch], total: int, limit: int | None, seed: int) -> Iterator[pa.RecordBatch]:
    """Give ``limit`` of ``total`` rows in their order, drawn by the seed; all of them if it is None or not fewer."""
    if limit is None or limit >= total:
        yield from batches
        return
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.Generator(np.random.Philox(seed)).choice(total, limit, replace=False)] = True
    first = 0
    for batch in batches:
        mask = chosen[first : first + batch.num_rows]
        first += batch.num_rows
        if mask.any():
            yield batch.filter(pa.array(mask))
