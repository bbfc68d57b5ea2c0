"""From argv to a frozen dataclass: one flag for each field, by jsonargparse; every mistake is one line.

Imports nothing heavy, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.train import arguments
from ringtune.train.arguments import Value
from ringtune.train.contract import UsageError, promised_rank
from ringtune.train.foreign_flag import Flag
from ringtune.train.translate import Vocabulary, judge, settle

MAY_CHANGE = "may change when a run is resumed"


def free(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that does not touch the mathematics of the run and may differ after a resume."""
    return field(default=default, metadata={MAY_CHANGE: True})


@dataclass(frozen=True)
class Command:
    """A command whose settings are the fields of a dataclass."""

    name: str
    settings: type  # a frozen dataclass; the docstring of each field is its help
    description: str
    epilog: str
    dry_run: str  # what a dry run does
    paths: tuple[str, ...]  # fields in which ~ is one's home
    foreign: Mapping[str, Flag]  # what becomes of the flags of Hugging Face
    lists: tuple[str, ...] = ()  # fields whose flags take several values, joined by commas
    joined: tuple[str, ...] = ()  # other fields whose values are joined by commas
    imply: Callable[[dict[str, Value]], dict[str, Value]] = dict  # adds what the settings of one source say of others
    complete: Callable[[dict[str, str], Callable[[str], None]], dict[str, str]] = lambda settings, note: settings

    @property
    def fields(self) -> dict[str, dataclasses.Field]:
        """The settings by name."""
        return {each.name: each for each in dataclasses.fields(self.settings)}


def parser(command: Command) -> Any:
    """Return the jsonargparse parser of a command."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True, add_print_completion_argument=True)
    result = ArgumentParser(
        prog=command.name, description=command.description, epilog=command.epilog, exit_on_error=False, add_help=True
    )
    result.add_argument("--config", action="config", help="YAML or JSON file with these settings; flags win over it.")
    result.add_argument("--dry_run", action="store_true", help=command.dry_run)
    result.add_class_arguments(command.settings)
    return result


def print_note(line: str) -> None:
    """Print a line for the user, on rank 0, beside what the command prints for programs."""
    if promised_rank() == 0:
        print(line, file=sys.stderr)


def parse(command: Command, argv: Sequence[str], note: Callable[[str], None] = print_note) -> tuple[Any, bool]:
    """Return the settings that the arguments say, and whether only a dry run is wanted.

    note: takes a line for each flag of Hugging Face that has no effect. Raises UsageError for everything wrong with the
    arguments.
    """
    given, requests = translate(command, argv, note)
    the_parser = parser(command)
    try:
        namespace = the_parser.parse_args([*(f"--{name}={value}" for name, value in given.items()), *requests])
    except SystemExit:
        raise
    except Exception as error:  # jsonargparse and argparse raise many kinds; each becomes one line
        raise UsageError("arguments", _one_line(error), todo="see --help") from None
    values = {name: _expand(command, name, getattr(namespace, name)) for name in command.fields}
    return command.settings(**values), bool(namespace.dry_run)


def translate(command: Command, argv: Sequence[str], note: Callable[[str], None]) -> tuple[dict[str, str], list[str]]:
    """Return the command's own settings that the arguments give, as its parser takes them, and requests like --help.

    Raises UsageError for names that are unknown or refused, and for values that mean nothing here.
    """
    sources, requests = arguments.read(argv, command.lists)
    words = Vocabulary(command.fields, command.foreign, (*command.lists, *command.joined))
    merged: dict[str, Value] = {}
    where: dict[str, str] = {}
    for source in sources:
        found = settle(words, source)
        merged |= command.imply(found)
        where |= {name: source.where(name) for name in found}
    judge(words, merged, where, note)
    own = {name: str(value) for name, value in merged.items() if name in command.fields}
    return command.complete(own, note), requests


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _expand(command: Command, name: str, value: Any) -> Any:
    if isinstance(value, str) and (name in command.paths or value.startswith("~")):
        return os.path.expanduser(value)
    return value


def require_positive(settings: Any, names: Iterable[str]) -> None:
    """Raise UsageError for a setting that is 0 or less; one that is not set is no mistake. **Pure.**"""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name}", f"{value} is not positive", legal="a number above 0")


def require_counts(settings: Any, names: Iterable[str]) -> None:
    """Raise UsageError for a setting that counts fewer than one; one that is not set is no mistake. **Pure.**"""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}", f"{value} is too few", legal="a whole number from 1")


def require_ending(path: Path, where: str, legal: Collection[str]) -> None:
    """Raise UsageError if a file's ending stands for no format. **Pure.**"""
    if path.suffix.lower() not in legal:
        raise UsageError(
            where,
            f"the ending {path.suffix or 'is missing'} is not known",
            legal=", ".join(legal),
            todo="convert or rename it",
        )


def refuse_changes(saved: Mapping[str, Any], settings: Any, start_new: str) -> None:
    """Raise UsageError if a resumed run would compute something else than the saved settings did. **Pure.**

    start_new: what to do to start a new run instead.
    """
    fields = dataclasses.fields(settings)
    current = dataclasses.asdict(settings)
    for each in fields:
        name = each.name
        was = saved.get(name, each.default)  # a setting that is newer than the run was not set
        if each.metadata.get(MAY_CHANGE) or was in (current[name], dataclasses.MISSING):
            continue
        free_ones = ", ".join(other.name for other in fields if other.metadata.get(MAY_CHANGE))
        raise UsageError(
            f"--{name}",
            f"{current[name]!r} is not what the run to be resumed has, {was!r}",
            legal=f"the world size and these may change: {textwrap.shorten(free_ones, 240, placeholder=' ...')}",
            todo=f"set {name} back, or {start_new}",
        )
