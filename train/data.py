"""From what the user names to validated rows, by `datasets`.

Every check streams over Arrow columns; no column is ever turned into a Python list.
"""

from __future__ import annotations

import csv
import difflib
import errno
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ringtune.train import flags
from ringtune.train.contract import UsageError

#: Columns of the GLUE tasks (Wang et al. 2019), as the data set `nyu-mll/glue` names them.
GLUE_COLUMNS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
GLUE_REPOSITORY = "nyu-mll/glue"
#: Arrow's names of number types; those of lists and structs of them only contain such a name.
_INTEGER, _FLOAT = re.compile(r"u?int\d+"), re.compile(r"float\d*|double")
LONGEST_FIELD = 10_000_000  # characters of a value: an unclosed quote must not draw in the rest of the file
FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class DataSource:
    """Where the rows are and which columns matter, as the user said it."""

    task_name: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column_names: str | None = None
    label_column_name: str = "label"
    max_train_samples: int | None = None
    max_eval_samples: int | None = None


@dataclass(frozen=True)
class Task:
    """What is to be learnt from which columns."""

    kind: str  # "classification" or "regression"
    label_names: tuple[str, ...]  # () for regression
    text_columns: tuple[str, ...]  # one or two
    label_column: str

    @property
    def num_labels(self) -> int:
        """Width of the model's output."""
        return len(self.label_names) or 1


@dataclass(frozen=True)
class Splits:
    """The rows of a run, memory-mapped."""

    train: Any  # datasets.Dataset
    validation: dict[str, Any]  # by the suffix of its scores
    test: Any | None
    digest: str  # sha256 over the rows as read and the options that choose among them


def load(source: DataSource, *, regression: bool | None, cache_dir: Path) -> tuple[Splits, Task]:
    """Return the rows and the task. ``cache_dir`` takes what `datasets` writes; the caller removes it.

    Raises UsageError naming file, row and value for everything that cannot be trained on.
    """
    if source.task_name and source.task_name not in GLUE_COLUMNS:
        near = difflib.get_close_matches(source.task_name, GLUE_COLUMNS, n=1)
        raise UsageError(
            "--task_name",
            f"{source.task_name} is no GLUE task",
            legal=", ".join(GLUE_COLUMNS),
            todo=f"did you mean {near[0]}" if near else "choose one",
        )
    if source.train_file:
        found, origin, digest = _from_files(source, cache_dir)
    else:
        found, origin, digest = _from_repository(source, cache_dir)
    for name, limit in (("train", source.max_train_samples), ("validation", source.max_eval_samples)):
        for key in [key for key in found if key.startswith(name)]:
            if limit is not None:
                found[key] = found[key].select(range(min(limit, len(found[key]))))
            digest.update(f"{key}:{limit}".encode())

    train = found["train"]
    columns = text_columns(source, train.column_names, origin["train"])
    label_column = source.label_column_name
    for key, rows in found.items():
        wanted = columns if key == "test" else (*columns, label_column)
        require_columns(rows.column_names, wanted, origin[key])
        for column in columns:
            _require_text(rows, column, origin[key])
    if regression is None:
        regression = source.task_name == "stsb" or _is_float(train, label_column)
    labelled = {key: rows for key, rows in found.items() if key != "test"}
    if regression:
        for key, rows in labelled.items():
            _require_numbers(rows, label_column, origin[key])
        task = Task("regression", (), columns, label_column)
    else:
        task = Task("classification", _label_names(train, label_column, origin["train"]), columns, label_column)
        for key, rows in labelled.items():
            _require_known_labels(rows, task, origin[key])
    digest.update(repr(task).encode())
    validation = {key.removeprefix("validation"): rows for key, rows in found.items() if key.startswith("validation")}
    return Splits(train, validation, found.get("test"), digest.hexdigest()), task


# Reading


def _from_files(source: DataSource, cache_dir: Path) -> tuple[dict[str, Any], dict[str, str], Any]:
    named = {"train": source.train_file, "validation": source.validation_file, "test": source.test_file}
    files = {key: Path(name) for key, name in named.items() if name}
    digest = hashlib.sha256()
    found = {}
    for key, path in files.items():
        _require_readable(path, f"--{key}_file {path}")
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        digest.update(key.encode())
        found[key] = _read(path, source, cache_dir)
        if not len(found[key]):
            raise no_rows(str(path))
    return found, {key: str(path) for key, path in files.items()}, digest


def no_rows(where: str) -> UsageError:
    """Return the error of an input without rows. **Pure.**"""
    return UsageError(where, "there are no rows in it", legal="a header and at least one row")


def _require_readable(path: Path, where: str) -> None:
    """Look at a file's name and bytes before any library does: its own words name no line."""
    flags.require_ending(path, where, FORMATS)
    require_file(path, where)
    if path.suffix.lower() == ".parquet":
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"{path}:{number}",
                    f"byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8",
                    legal="UTF-8 text",
                    todo="convert the file, e.g. with iconv",
                ) from None


def require_file(path: Path, where: str) -> None:
    """Raise UsageError if there is no file, or nothing in it."""
    if not path.exists():
        raise UsageError(where, "there is no such file", legal="a file of rows")
    if not path.is_file():
        raise UsageError(where, "it is not a file", legal="a file of rows")
    if path.stat().st_size == 0:
        raise UsageError(where, "the file is empty", legal="a header and at least one row")


def _read(path: Path, source: DataSource, cache_dir: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what is wrong is told below, once
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {}
    if kind == "csv":
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        _require_fields(path, source, separator)
        # A review that reads "NA" or "null" is a text, not a missing value.
        options = {"sep": separator, "keep_default_na": False}
    try:
        return datasets.load_dataset(
            kind, data_files={"rows": str(path)}, split="rows", cache_dir=str(cache_dir), **options
        )
    except Exception as error:  # the parsers of pandas and pyarrow raise many kinds, wrapped by datasets
        cause = error.__cause__ or error
        words = " ".join(str(cause).split())[:200]
        if "corresponds to no data" in words:
            raise no_rows(str(path)) from None
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or words.startswith("Not enough disk space"):
            raise UsageError(
                f"--cache_dir {cache_dir}",
                "there is no room left",
                legal=f"room for {path} and its tokens",
                todo="free space, choose another, or set $RINGTUNE_CACHE",
            ) from None
        raise UsageError(
            str(path), f"it cannot be read as {kind}: {words}", legal="rows that all have the header's columns"
        ) from None


def _require_fields(path: Path, source: DataSource, separator: str) -> None:
    """Raise UsageError for a header that pandas would mend in silence. What it makes of the rows below, it says itself.

    A name that is there twice it numbers: ``text,text`` would be trained as a pair; where neither is used, it does no harm.
    If the first row has more fields than the header, it takes the surplus for an index, and every column then holds what
    stands to the right of it.
    """
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as stream, suppress(csv.Error):
        filled = filter(None, csv.reader(stream, delimiter=separator))
        header, row = next(filled, []), next(filled, [])
        mended = len(set(header)) < len(header)
        used = (*text_columns(source, header, str(path)), source.label_column_name) if mended else ()
        twice = [name for name in used if header.count(name) > 1]
        if twice:
            raise UsageError(
                f"{path}: the header", f"it has {twice[0]!r} twice", legal="each name once", todo="rename one of them"
            )
        if len(row) > len(header):
            raise UsageError(
                f"{path}: row 1",
                f"it has {len(row)} fields, the header {len(header)}: {', '.join(header)}",
                legal="a name in the header for every field",
            )


def load_repository(name: str, configuration: str | None, where: str, instead: str) -> Any:
    """Return the splits of a data set, by name. ``instead``: what to do where there is none. Raises UsageError."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what is wrong is told below, once
    try:
        # The hub's own cache serves every run; only files of the user's are read anew each time.
        return datasets.load_dataset(name, configuration)
    except Exception as error:  # many kinds: not found, offline, wrong configuration, broken files
        words = " ".join(str(error).split())[:200]
        raise UsageError(
            where,
            f"it cannot be loaded: {words}",
            legal="a hub name where there is a network, or a local folder",
            todo=f"download it elsewhere, or use {instead}",
        ) from None


def _from_repository(source: DataSource, cache_dir: Path) -> tuple[dict[str, Any], dict[str, str], Any]:
    name, configuration = source.dataset_name, source.dataset_config_name
    if source.task_name and not name:
        name, configuration = GLUE_REPOSITORY, source.task_name
    where = f"data set {name}" + (f"/{configuration}" if configuration else "")
    loaded = load_repository(str(name), configuration, where, "--train_file and --validation_file")
    found = {}
    for key, rows in loaded.items():
        renamed = {"validation_matched": "validation", "validation_mismatched": "validationmm", "test_matched": "test"}
        key = renamed.get(str(key), str(key))
        if key in ("train", "validation", "validationmm", "test"):
            found[key] = rows
    if "train" not in found:
        raise UsageError(
            where, f"it has no train split, only {', '.join(map(str, loaded))}", legal="a split named train"
        )
    digest = hashlib.sha256("".join(f"{key}{rows._fingerprint}" for key, rows in sorted(found.items())).encode())
    return found, {key: f"{where}, split {key}" for key in found}, digest


# Columns


def text_columns(source: DataSource, column_names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the one or two text columns: as said, as the GLUE task has them, or by run_glue.py's rule. **Pure.**"""
    if source.text_column_names:
        names = tuple(name.strip() for name in source.text_column_names.split(","))
        if len(names) > 2 or not all(names) or len(set(names)) < len(names):
            raise UsageError(
                "--text_column_names",
                f"{source.text_column_names!r} names {len(names)} columns",
                legal="one column, or two different ones joined by a comma",
            )
        return names
    if source.task_name in GLUE_COLUMNS and set(GLUE_COLUMNS[source.task_name]) <= set(column_names):
        return GLUE_COLUMNS[source.task_name]
    others = [name for name in column_names if name not in (source.label_column_name, "idx", "id")]
    if {"sentence1", "sentence2"} <= set(others):
        return ("sentence1", "sentence2")
    if not others:
        raise UsageError(where, "there is no text column", legal=f"it has {', '.join(column_names)}")
    return tuple(others[:2])


def require_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise UsageError for the first column that is wanted and not there. **Pure.**"""
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            raise UsageError(
                where,
                f"there is no column {name!r}",
                legal=f"it has {', '.join(found)}",
                todo=(f"the nearest is {near[0]}; " if near else "")
                + "see --text_column_names and --label_column_name",
            )


def _first_row(rows: Any, column: str, is_bad: Callable[[pa.Array], pa.Array]) -> tuple[int, Any] | None:
    """Return number and value of the first row for which the Arrow predicate holds. Rows count from 1, header apart."""
    start = 0
    indices = rows._indices
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        values = batch.column(column)
        bad = pc.fill_null(is_bad(values), True)
        if pc.any(bad).as_py():
            offset = pc.index(bad, True).as_py()
            row = start + offset
            return (int(indices.column(0)[row].as_py()) if indices is not None else row) + 1, values[offset].as_py()
        start += batch.num_rows
    return None


def _require_text(rows: Any, column: str, where: str) -> None:
    kind = rows.features[column]
    dtype = getattr(kind, "dtype", str(kind))
    if dtype not in ("string", "large_string"):
        bad = _first_row(rows, column, lambda values: pc.is_null(values))
        value = rows[0][column] if bad is None else bad[1]
        raise UsageError(
            where,
            f"column {column!r} holds {dtype}, not text; row 1 has {value!r}",
            legal="strings",
            todo="name another column with --text_column_names",
        )
    bad = _first_row(rows, column, lambda values: pc.is_null(values))
    if bad is not None:
        raise UsageError(f"{where}: row {bad[0]}", f"there is no text in column {column!r}", legal="a string")


# Labels


def _is_float(rows: Any, column: str) -> bool:
    """Return whether a column holds ratings: floats, or strings of which any is a decimal fraction.

    One "nan" or "n/a" among the ratings of a CSV file turns its column into strings; without the second rule it would be
    trained on as a class.
    """
    dtype = getattr(rows.features[column], "dtype", "")
    if dtype not in ("string", "large_string"):
        return bool(_FLOAT.fullmatch(dtype))
    is_fraction = r"^\s*[-+]?\d*\.\d+\s*$"
    return (
        _first_row(rows, column, lambda values: pc.fill_null(pc.match_substring_regex(values, is_fraction), False))
        is not None
    )


def _require_numbers(rows: Any, column: str, where: str) -> None:
    dtype = getattr(rows.features[column], "dtype", "")
    if dtype in ("string", "large_string"):
        bad = _first_row(
            rows,
            column,
            lambda values: pc.invert(
                pc.match_substring_regex(values, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
            ),
        )
        bad = bad or _first_row(
            rows, column, lambda values: _too_large(pc.cast(pc.utf8_trim_whitespace(values), pa.float64()))
        )
    elif _FLOAT.fullmatch(dtype):
        bad = _first_row(rows, column, _too_large)
    elif _INTEGER.fullmatch(dtype):
        bad = _first_row(rows, column, lambda values: pc.is_null(values))
    else:
        bad = (1, rows[0][column])
    if bad is not None:
        raise UsageError(
            f"{where}: row {bad[0]}", f"the rating in column {column!r} is {bad[1]!r}", legal="a finite number"
        )


def _too_large(values: pa.Array) -> pa.Array:
    """Return where a rating is no finite number in fp32, in which the model learns it."""
    return pc.invert(pc.is_finite(pc.cast(values, pa.float32(), safe=False)))


def _as_text(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.string())


def _label_names(train: Any, column: str, where: str) -> tuple[str, ...]:
    feature = train.features[column]
    names = getattr(feature, "names", None)
    if names:
        return tuple(names)
    dtype = getattr(feature, "dtype", str(feature))
    if _FLOAT.fullmatch(dtype):
        bad = _first_row(
            train,
            column,
            lambda values: pc.or_kleene(pc.invert(pc.is_finite(values)), pc.not_equal(values, pc.floor(values))),
        )
        value = bad[1] if bad else train[0][column]
        raise UsageError(
            where,
            f"column {column!r} holds numbers such as {value!r}, not classes",
            legal="strings or whole numbers",
            todo="use --regression true, or other labels",
        )
    if dtype not in ("string", "large_string", "bool") and not _INTEGER.fullmatch(dtype):
        raise UsageError(
            where,
            f"column {column!r} holds {dtype}, not labels",
            legal="strings or whole numbers",
            todo="name another with --label_column_name",
        )
    bad = _first_row(train, column, lambda values: pc.equal(pc.utf8_trim_whitespace(_as_text(values)), ""))
    if bad is not None:
        raise UsageError(f"{where}: row {bad[0]}", f"the label in column {column!r} is {bad[1]!r}", legal="a label")
    unique = {
        each
        for batch in train.with_format("arrow").iter(batch_size=10_000)
        for each in pc.unique(batch.column(column)).to_pylist()
    }
    if len(unique) < 2:
        raise UsageError(where, f"all rows have the label {next(iter(unique))!r}", legal="two classes or more")
    return tuple(str(each) for each in sorted(unique))


def _require_known_labels(rows: Any, task: Task, where: str) -> None:
    feature = rows.features[task.label_column]
    if getattr(feature, "names", None):
        bad = _first_row(
            rows,
            task.label_column,
            lambda values: pc.invert(pc.and_(pc.greater_equal(values, 0), pc.less(values, task.num_labels))),
        )
    else:
        known = pa.array(task.label_names)
        bad = _first_row(
            rows, task.label_column, lambda values: pc.invert(pc.is_in(_names_of(values), value_set=known))
        )
    if bad is not None:
        raise UsageError(
            f"{where}: row {bad[0]}",
            f"the label {bad[1]!r} does not occur in the training rows",
            legal=f"{', '.join(task.label_names[:20])}",
            todo="mend the row, or train on rows that have it",
        )


def _names_of(values: pa.Array) -> pa.Array:
    """Return labels as the strings they are named by; booleans as Python spells them."""
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "True", "False")
    return _as_text(values)


def label_numbers(values: pa.ChunkedArray | pa.Array, task: Task, *, already_numbers: bool) -> np.ndarray:
    """Return labels as the model wants them: int64 class numbers, or float32 values. [N] -> [N]."""
    if task.kind == "regression":
        return np.asarray(
            pc.cast(
                pc.utf8_trim_whitespace(values) if pa.types.is_string(values.type) else values, pa.float32()
            ).to_numpy()
        )
    if already_numbers:
        return np.asarray(pc.cast(values, pa.int64()).to_numpy())
    return np.asarray(
        pc.cast(pc.index_in(_names_of(values), value_set=pa.array(task.label_names)), pa.int64()).to_numpy()
    )
