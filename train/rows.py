"""Rows of a source on disk, as an Arrow file: read once from the source, then by batch as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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


class RowFile:
    """Rows that `write_rows` wrote. It holds one batch in memory; threads open one file each."""

    def __init__(self, path: Path) -> None:
        self.file = pa.ipc.open_file(pa.OSFile(str(path)))  # not mapped: its pages would count as this rank's memory
        self.num_batches = self.file.num_record_batches

    def read(self, number: int) -> pa.RecordBatch:
        """Return one batch."""
        return self.file.get_batch(number)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return map(self.read, range(self.num_batches))


def first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """Give the first ``limit`` rows of batches, all of them if it is None."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
        elif left > 0:
            yield batch.slice(0, left)
            left -= batch.num_rows
        else:
            return
