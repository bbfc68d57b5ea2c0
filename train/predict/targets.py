"""What a prediction writes, and that it replaces nothing that should stay: looked at before anything is predicted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ringtune.train.columns import shown_names, split_names
from ringtune.train.contract import UsageError
from ringtune.train.predict import inputs
from ringtune.train.predict.config import PredictConfig

#: How a report begins, and what it has in any version.
_START = b'{\n "model": '
_FIELDS = {"model", "input", "output", "num_rows", "scores", "ranks"}
#: Names in a folder of parts.
_OURS = re.compile(r"\..*|job\.json|stdin|(spool|part-\d+)\..*\.arrow")


def check(config: PredictConfig, folder: Path, record: Path) -> None:
    """Raise UsageError if output or report cannot be written, or would replace what is no earlier one. Changes nothing.

    folder, record: of the output's parts, and of what it was made from.
    """
    output = Path(config.output)
    where = f"--output {output}"
    if output.is_dir():
        raise UsageError(where, "it is a folder", legal="a file to write", todo="name a file in it")
    is_ours = folder.exists() or record.exists()
    _refuse_read(config, output, where, is_ours=is_ours)
    if output.exists() and not is_ours and not config.overwrite_output:
        raise exists(where)
    for read, flag in _files_read(config):
        if _is_same(read, record) or _is_in(read, folder):
            raise UsageError(
                where, f"{flag} {read} is where what belongs to it is kept", legal="another file", todo="name another"
            )
    others = [each.name for each in folder.iterdir() if not _OURS.fullmatch(each.name)] if folder.is_dir() else []
    if others:  # it is emptied before a prediction, and removed after it
        what = f"{folder} is where its parts are kept, and has {shown_names(sorted(others))}"
        raise UsageError(where, what, legal="no files of others there", todo="move them, or name another output")
    if config.report is not None:
        _check_report(config, Path(config.report), folder, record)


def exists(where: str) -> UsageError:
    """Return the error of a file that would be replaced. where: flag and file."""
    return UsageError(where, "it exists", legal="a new file", todo="--overwrite_output replaces it; or name another")


def _check_report(config: PredictConfig, report: Path, folder: Path, record: Path) -> None:
    where = f"--report {report}"
    if report.is_dir():
        raise UsageError(where, "it is a folder", legal="a file to write", todo="name a file in it")
    if not report.parent.is_dir():
        raise UsageError(where, "its folder does not exist", legal="a file in a folder that does")
    if report.exists() and not report.is_file():
        raise UsageError(where, "it is no file: a device, perhaps", legal="a file to write", todo="name another")
    if _is_same(report, Path(config.output)):
        raise UsageError(where, "it is the file of --output", legal="a file of its own", todo="name another")
    if _is_same(report, record) or _is_in(report, folder):
        raise UsageError(
            where, f"what belongs to --output {config.output} is kept there", legal="another file", todo="name another"
        )
    is_ours = _is_report(report)
    _refuse_read(config, report, where, is_ours=is_ours)
    if report.exists() and not is_ours and not config.overwrite_output:
        raise exists(where)


def _is_report(path: Path) -> bool:
    """Return whether a file is a report of an earlier prediction, or an empty one, of which nothing can be lost."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_START))
            if start != _START:
                return not start
            content = json.loads(start + stream.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _FIELDS


def _refuse_read(config: PredictConfig, path: Path, where: str, *, is_ours: bool) -> None:
    """Raise UsageError if a file to write is one that is read, which nothing may replace.

    is_ours: whether it was written by an earlier prediction, as it may be in the folder of a model or a data set.
    """
    for read, flag in _files_read(config):
        if _is_same(path, read):
            raise UsageError(where, f"it is read, as {flag}", legal="another file", todo="name another")
    for name, flag in ((config.input, "--input"), (config.model_name_or_path, "--model_name_or_path")):
        read = Path(name).expanduser()
        is_read_whole = flag != "--input" or not inputs.names_files(config)
        if path.exists() and not is_ours and is_read_whole and _is_in(path, read):
            raise UsageError(
                where,
                f"it is in the folder of {flag}, and not of a prediction",
                legal="another file",
                todo="name another",
            )


def _files_read(config: PredictConfig) -> Iterator[tuple[Path, str]]:
    """Give each file that is read, and the flag that names it. Raises UsageError for an input that is not there."""
    if config.reads_stdin:
        yield Path("/dev/stdin"), "--input"
    elif inputs.names_files(config):
        yield from ((path, "--input") for path in inputs.find_files(config).paths)
    for name in split_names(config.metrics):
        module = name.rpartition(":")[0]
        if module.endswith(".py"):
            yield Path(module).expanduser(), "--metrics"


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two names are of one file, through whatever links; also of one that is not there yet."""
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except (OSError, RuntimeError):  # one is not there, or links that go in a circle
        return False


def _is_in(path: Path, folder: Path) -> bool:
    try:
        return folder.is_dir() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False
