"""From what a user writes to the files that are read: names, patterns, folders, joined by commas."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringtune.train import formats
from ringtune.train.columns import shown_names
from ringtune.train.compression import OPENERS, is_compressed, plain_ending
from ringtune.train.contract import UsageError

#: Words by which a file is known to be one split of several, as the library ``datasets`` knows them.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Files:
    """The files of one input, all of one format, in the order in which they are read."""

    where: str  # what the user wrote, shortened, for messages
    kind: str
    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()  # what is not read, a line each


def entries_of(value: str) -> list[str]:
    """Return what a user wrote apart: a name that exists is one, whatever is in it."""
    value = os.path.expanduser(value)
    if Path(value).exists():
        return [value]
    return [os.path.expanduser(each.strip()) for each in value.split(",") if each.strip()]


def is_pattern(entry: str) -> bool:
    """Return whether a name stands for all files that match it."""
    return re.search(r"[*?\[]", entry) is not None and not Path(entry).exists()


def find(value: str, flag: str, legal: Mapping[str, str], kind: str | None = None) -> Files:
    """Return the files that a user named: in the order of the names, those of a pattern or a folder sorted as texts.

    value: names, patterns and folders, joined by commas. flag: ``--input``. legal: format by ending. kind: the format;
    None: by the endings. Raises UsageError.
    """
    entries = entries_of(value) or [value]
    found: list[Path] = []
    notes: list[str] = []
    for entry in entries:
        where = f"{flag} {entry}"
        if is_pattern(entry):
            found += _matching(entry, where, legal)
        elif Path(entry).is_dir():
            several, left_out = _in_folder(Path(entry), where, legal, any_ending=kind is not None)
            found += several
            notes += [f"not read of this folder: {shown_names(left_out)}"] * bool(left_out)
        else:
            found.append(Path(entry))
    _refuse_twice(found, flag)
    kinds: dict[str, Path] = {}
    for path in found:
        alone = f"{flag} {path}"
        kinds.setdefault(kind or kind_of(path, alone, legal), path)
        formats.require_file(path, alone)
    if len(kinds) > 1:
        names = " and ".join(f"{path.name} ({each})" for each, path in list(kinds.items())[:3])
        raise UsageError(f"{flag} {entries[0]}", f"it has files of several formats: {names}", legal="one format")
    where = entries[0] + (f" and {len(entries) - 1} more" if len(entries) > 1 else "")
    return Files(where, next(iter(kinds)), tuple(found), tuple(notes))


def kind_of(path: Path, flag: str, legal: Mapping[str, str]) -> str:
    """Return the format of a file by its ending, or the one before that of a compressed file. Raises UsageError."""
    ending = plain_ending(path)
    if ending not in legal or (legal[ending] in formats.TABLE_KINDS and is_compressed(path)):
        never = " and ".join(each for each, kind in legal.items() if kind in formats.TABLE_KINDS)
        raise UsageError(
            flag,
            f"the ending {''.join(path.suffixes[-2:])[-20:] or 'is missing'} is not known",
            legal=f"{', '.join(legal)}; all but {never} also with {', '.join(OPENERS)}",
            todo="decompress it" if ending in legal else _how_to_read(ending, flag),
        )
    return legal[ending]


def _how_to_read(ending: str, flag: str) -> str:
    """Return what to do with a file whose ending is not known. **Pure.**"""
    if ending in (".xlsx", ".xls", ".ods"):
        return "save it as CSV in UTF-8"
    if ending in (".zip", ".tar", ".tgz", ".7z", ".rar"):
        return "unpack it"
    if flag.startswith("--input "):
        return "rename it, or say what it is with --input_format"
    if ending == ".txt" and not flag.startswith("--pseudo_file "):
        return "--task token_classification for a word and its tag a line, --task masked_lm for plain texts"
    return "convert or rename it: to .conll if it has a word and its tag a line"


def _matching(pattern: str, where: str, legal: Mapping[str, str]) -> list[Path]:
    found = [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]
    files = [each for each in found if each.is_file() and not _is_marker(each, legal)]
    if not files:
        raise UsageError(where, "no file matches it", legal="a pattern such as 'data/part-*.csv' or 'data/**/*.csv'")
    return files


def _in_folder(folder: Path, where: str, legal: Mapping[str, str], *, any_ending: bool) -> tuple[list[Path], list[str]]:
    """Return the files of a folder, and the names of what else is in it."""
    everything = sorted((each for each in folder.iterdir() if not _is_marker(each, legal)), key=str)
    files = [each for each in everything if each.is_file() and (any_ending or plain_ending(each) in legal)]
    others = [each.name + "/" * each.is_dir() for each in everything if each not in files]
    if not files:
        raise UsageError(
            where,
            f"it has no file that can be read, {f'only {shown_names(others)}' if others else 'it is empty'}",
            legal=f"files that end in {', '.join(legal)}",
            todo="a pattern reads sub-folders: 'FOLDER/**/*.csv'",
        )
    splits = {each.name: _split_of(each) for each in files}
    if len(set(splits.values())) > 1:
        raise UsageError(
            where,
            f"its files are named for several splits: {shown_names(list(splits))}",
            legal="rows of one split",
            todo="name the files, or a pattern",
        )
    return files, others


def _is_marker(path: Path, legal: Mapping[str, str]) -> bool:
    """Return whether a file is hidden, or like Spark's ``_SUCCESS``, which holds no rows. **Pure.**"""
    return path.name.startswith(".") or (path.name.startswith("_") and plain_ending(path) not in legal)


def _split_of(path: Path) -> str | None:
    """Return the split that a file's name says it is, None for none. **Pure.**"""
    words = re.split(r"[^a-z]+", path.name.partition(".")[0].lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _refuse_twice(paths: Sequence[Path], flag: str) -> None:
    """Raise UsageError for a file that two names stand for: its rows would be read twice."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UsageError(f"{flag} {path}", "this file is named twice", legal="each file once")
        seen.add(path.resolve())
