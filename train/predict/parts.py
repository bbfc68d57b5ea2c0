"""The folder beside an output in which it grows: the rows to predict, and each finished chunk of them.

```
OUTPUT.parts/
  job.json                      what the parts are made from; written when the spool is there
  spool.<sha256>.arrow          the rows of the input, a chunk a record batch
  part-00000012.<sha256>.arrow  the predictions of chunk 12
.OUTPUT.job.json                when it has finished: what the output was made from, and its checksum
```

What makes a kill at any line harmless: every file appears by one rename, with its checksum in its name; the parts are
joined in a temporary file, which one rename makes the output; the folder goes last. Started again in between, the same
command finds parts and output, joins again and sees that they agree; started again afterwards, it has nothing to do.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from ringtune.train import chunks, compression, disk, publish
from ringtune.train.columns import Columns, shown_names
from ringtune.train.contract import StopRequested, UsageError
from ringtune.train.predict import targets
from ringtune.train.predict.config import PredictConfig
from ringtune.train.predict.identity import START_AGAIN, Identity, processor_note, refuse_other
from ringtune.train.predict.inputs import in_chunks
from ringtune.train.predict.predictor import shown_columns
from ringtune.train.predict.writer import open_writer, refuse_unwritable
from ringtune.train.rows import RowFile, write_rows
from ringtune.train.rundir import RunLock
from ringtune.train.source import Source, refuse_errors

JOB_FILE = "job.json"
KEEP_ROWS = "fix it, or use --on_error keep"
SPOOL = "spool"


def part_name(chunk: int) -> str:
    """Return the stem of a chunk's part. **Pure.**"""
    return f"part-{chunk:08}"


class Spool(RowFile):
    """The rows of an input on disk, by chunk. It holds one chunk in memory; threads open one each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.num_rows = chunks.first_row(self.num_batches - 1) + self.read(self.num_batches - 1).num_rows

    def rows_of_chunk(self, chunk: int) -> int:
        """Return how many rows a chunk has, without reading it."""
        return min(chunks.size(chunk), self.num_rows - chunks.first_row(chunk))


def read_part(path: Path) -> pa.RecordBatch:
    """Return the rows of a part."""
    with pa.OSFile(str(path)) as stream:
        return pa.ipc.open_file(stream).get_batch(0)


def write_part(folder: Path, chunk: int, rows: pa.RecordBatch) -> None:
    """Publish a part."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as file:
        file.write_batch(rows)
    publish.write_file(folder, part_name(chunk), memoryview(sink.getvalue()))


class PartsFolder:
    """The folder of parts of one output. **Rank 0 only**, but for the parts, which all ranks write."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".parts")
        self.record = output.with_name(f".{output.name}.{JOB_FILE}")
        self.lock = RunLock(self.folder, "--output: the parts in")

    def check_output(self, config: PredictConfig) -> None:
        """Raise UsageError if output or report cannot be written. Changes nothing."""
        targets.check(config, self.folder, self.record)

    def copy_stdin(self) -> Path:
        """Write what comes from stdin to a file, which can be read twice; return it."""
        path = self.folder / "stdin"
        with path.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream, compression.BYTES_PER_READ)
        return path

    def check_identity(self, identity: Identity, report: Callable[[str], None], *, overwrite: bool) -> bool:
        """Return whether parts of this very job are there already; report if another kind of processor made them.

        Raises UsageError naming what differs if they are another's, unless these may be overwritten.
        """
        path = self.folder / JOB_FILE
        if not path.exists():
            return False
        where = f"the parts in {self.folder}"
        try:
            saved = Identity.read(path)[0]
            refuse_other(saved, identity, where)
        except UsageError:
            if overwrite:
                return False
            raise
        note = processor_note(saved, identity)
        if note:
            report(f"{where}: {note}")
        return True

    def has_finished(self, identity: Identity, *, overwrite: bool) -> bool:
        """Return whether the output of this very job is there already, whole.

        Raises UsageError naming what differs if an output is there that is another's or was changed.
        """
        if overwrite or not self.output.exists():
            return False
        if not self.record.exists():
            raise targets.exists(f"--output {self.output}")
        saved, sha256 = Identity.read(self.record)
        refuse_other(saved, identity, f"--output {self.output}")
        if publish.file_sha256(self.output) != sha256:
            raise UsageError(
                f"--output {self.output}",
                "it is not what was predicted: its sha256 differs",
                legal="the file as it was written",
                todo=START_AGAIN,
            )
        return True

    def remove_left_behind(self) -> None:
        """Remove what killed writers left, under the lock."""
        publish.remove_left_behind(self.folder)
        publish.remove_left_behind(self.record.parent, self.record.name)

    def clear(self) -> None:
        """Remove everything that an earlier command left, but what holds the lock."""
        for path in self.folder.iterdir():
            if not path.name.startswith(".lock") and path.name != "stdin":
                path.unlink()

    def spool(
        self,
        source: Source,
        columns: Columns,
        config: PredictConfig,
        should_stop: Callable[[], bool],
        report: Callable[[str], None],
    ) -> Path:
        """Read the input once, row by row, into a file that ranks read by chunk; return it.

        A whole one that is there already is kept. Raises StopRequested; UsageError for an input without rows, and for a
        row that cannot be used, if such a row should stop the job.
        """
        found = publish.list_files(self.folder).get(SPOOL)
        if found is not None:
            reason = publish.verify_file(found)
            if reason is None:
                return found
            report(f"{found}: {reason}; the input is read again")
        path = publish.temporary_file(self.folder, SPOOL)
        try:
            with disk.named(self.folder):
                has_rows = write_rows(path, _usable_chunks(source, columns, config), should_stop)
            if not has_rows:
                raise UsageError(source.where, "there are no rows in it", legal="at least one row")
            return publish.publish_file(path, SPOOL)
        finally:
            path.unlink(missing_ok=True)

    def sign(self, identity: Identity) -> None:
        """Write down what the parts that follow are made from."""
        identity.write(self.folder / JOB_FILE)

    def missing_chunks(self, num_chunks: int, report: Callable[[str], None]) -> list[int]:
        """Return the chunks without a whole part; a damaged part is named and removed."""
        found = publish.list_files(self.folder)
        missing = []
        for chunk in range(num_chunks):
            path = found.get(part_name(chunk))
            reason = publish.verify_file(path) if path is not None else None
            if path is not None and reason is not None:
                report(f"{path}: {reason}; its rows are predicted again")
                path.unlink()
            if path is None or reason is not None:
                missing.append(chunk)
        return missing

    def part_paths(self, num_chunks: int) -> list[Path]:
        """Return the parts in the order of their rows."""
        found = publish.list_files(self.folder)
        return [found[part_name(chunk)] for chunk in range(num_chunks)]

    def join(
        self,
        paths: Sequence[Path],
        *,
        overwrite: bool,
        should_stop: Callable[[], bool],
        choose: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda rows: rows,
    ) -> int:
        """Write the output from its parts, holding few of them at a time; return its rows. Survives a crash at any
        point. choose: the rows of a part that are written."""
        temporary = publish.temporary_file(self.folder, "output")
        schema = shown_columns(read_part(paths[0])).schema
        num_rows = 0
        try:
            suffix = self.output.suffix.lower()
            with disk.named(self.folder), open_writer(temporary, suffix, schema) as writer:
                for path in paths:
                    if should_stop():
                        raise StopRequested
                    rows = choose(shown_columns(read_part(path)))
                    _refuse_other_columns(path, rows.schema.names, schema.names)
                    num_rows += rows.num_rows
                    writer.write(rows)
            disk.flush(temporary)
            if (
                self.output.exists()
                and not overwrite
                and publish.file_sha256(self.output) != publish.file_sha256(temporary)
            ):
                raise UsageError(
                    f"--output {self.output}",
                    "it exists, and with another content",
                    legal="a new file",
                    todo="--overwrite_output replaces it; or move it away",
                )
            disk.rename(temporary, self.output)
            return num_rows
        finally:
            temporary.unlink(missing_ok=True)

    def sign_output(self, identity: Identity) -> None:
        """Write down what the output was made from, so that the same command finds that it has finished."""
        identity.write(self.record, publish.file_sha256(self.output))

    def remove(self) -> None:
        """Remove the folder: the output is there. What makes it a job's goes first, so that half of it is none."""
        (self.folder / JOB_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def release(self) -> None:
        """Release the lock; a folder in which nothing was begun is removed."""
        if not self.lock.lock.is_locked:
            return
        if self.folder.exists() and not (self.folder / JOB_FILE).exists():
            self.remove()
        self.lock.release()


def _usable_chunks(source: Source, columns: Columns, config: PredictConfig) -> Iterator[pa.RecordBatch]:
    """Yield the chunks of an input. Raises UsageError for a row that cannot be used, if such a row stops the job,
    and for a column to keep that the output cannot hold."""
    for chunk in in_chunks(source.read(columns)):
        if config.on_error == "stop":
            refuse_errors(chunk, source, todo=KEEP_ROWS)
        refuse_unwritable(chunk, Path(config.output).suffix.lower(), source.where)
        yield chunk


def _refuse_other_columns(path: Path, names: Sequence[str], others: Sequence[str]) -> None:
    """Raise UsageError for a part that has not the columns of the first: an earlier version lost some of its input."""
    odd = sorted({*names} ^ {*others})
    if odd:
        what = f"not every part has the columns {shown_names(odd)}: an earlier version made some of them"
        # --overwrite_output would go on with them: they are this very job's.
        raise UsageError(str(path), what, legal="parts of one version", todo=f"remove {path.parent} to start again")


def error_rows(paths: Sequence[Path]) -> Iterator[tuple[int, int, str]]:
    """Give chunk, row of the chunk and error of each row that has one."""
    for chunk, path in enumerate(paths):
        errors = read_part(path).column("error")
        if errors.null_count < len(errors):
            yield from ((chunk, row, error) for row, error in enumerate(errors.to_pylist()) if error is not None)
