"""From argv to a frozen dataclass: one flag for each field, by jsonargparse; every mistake is one line.

Imports nothing heavy, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.train.contract import UsageError

MAY_CHANGE = "may change when a run is resumed"
FLAGS_ONLY = ("config", "print_config", "help", "dry_run", "print_completion")


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
    result.add_argument("--config", action="config", help="YAML file with these settings; flags win over it.")
    result.add_argument("--dry_run", action="store_true", help=command.dry_run)
    result.add_class_arguments(command.settings)
    return result


def normalise(command: Command, argv: Sequence[str]) -> list[str]:
    """Spell flags as jsonargparse wants them: underscores, and ``--bf16 true`` for ``--bf16``, as run_glue.py takes.

    **Pure.** Raises UsageError for an unknown flag, naming the nearest.
    """
    fields = command.fields
    known = {*fields, *FLAGS_ONLY}
    result: list[str] = []
    for index, word in enumerate(argv):
        if not word.startswith("--"):
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in known:
            raise UsageError(f"--{name}", "there is no such flag", legal=_nearest(name, known), todo="see --help")
        if name in fields and "bool" in str(fields[name].type) and not equals:
            following = argv[index + 1] if index + 1 < len(argv) else "--"
            if following.startswith("-"):
                equals, value = "=", "true"
        result.append(f"--{name}{equals}{value}")
    return result


def parse(command: Command, argv: Sequence[str]) -> tuple[Any, bool]:
    """Return the settings that the arguments say, and whether only a dry run is wanted.

    Raises UsageError for everything wrong with them.
    """
    words = normalise(command, argv)
    the_parser = parser(command)
    _check_config_file(command, words)
    try:
        namespace = the_parser.parse_args(words)
    except SystemExit:
        raise
    except Exception as error:  # jsonargparse and argparse raise many kinds; each becomes one line
        raise UsageError("arguments", _one_line(error), todo="see --help") from None
    values = {name: _expand(command, name, getattr(namespace, name)) for name in command.fields}
    for name, value in values.items():
        _refuse_empty(command.fields[name], value)
    return command.settings(**values), bool(namespace.dry_run)


def _refuse_empty(setting: dataclasses.Field, value: Any) -> None:
    """Raise UsageError for what only a YAML file can hold: a missing value, ``.nan``, ``"\\0"``. **Pure.**"""
    if value is None and "None" not in str(setting.type):
        raise UsageError(
            f"--{setting.name}", "it is null", legal=f"a value of type {setting.type}", todo="give one or leave it out"
        )
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"--{setting.name}", f"{value!r} holds a NUL character", legal="text without one")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"--{setting.name}", f"{value} is not finite", legal="a finite number")


def _check_config_file(command: Command, words: Sequence[str]) -> None:
    """Say what is wrong with the YAML file in its own words before the parser wraps them in its own."""
    import yaml

    for index, word in enumerate(words):
        if word.split("=")[0] != "--config":
            continue
        name = word.partition("=")[2] or (words[index + 1] if index + 1 < len(words) else "")
        if not name:
            continue  # the parser reports it
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8")
            content = yaml.safe_load(text)
        except OSError as error:
            raise UsageError(f"--config {name}", str(error.strerror), legal="a YAML file") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 13 is a ValueError
            raise UsageError(f"--config {name}", _one_line(error), legal="YAML: one 'key: value' a line") from None
        if not isinstance(content, Mapping):
            raise UsageError(f"--config {name}", "it holds no settings", legal="YAML: one 'key: value' a line")
        root = yaml.compose(text)
        keys = [each.value for each, _ in root.value] if isinstance(root, yaml.MappingNode) else []
        for key in content:
            if keys.count(str(key)) > 1:  # YAML's reader takes the last one in silence
                raise UsageError(f"{name}: {key}", "it is there twice", legal="each key once")
            if key not in command.fields:
                raise UsageError(
                    f"{name}: {key}", "unknown key", legal=_nearest(str(key), command.fields), todo="see --help"
                )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"nearest is {near[0]}" if near else "the legal ones are in --help"


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
        if each.metadata.get(MAY_CHANGE) or name not in saved or saved[name] == current[name]:
            continue
        free_ones = ", ".join(other.name for other in fields if other.metadata.get(MAY_CHANGE))
        raise UsageError(
            f"--{name}",
            f"{current[name]!r} is not what the run to be resumed has, {saved[name]!r}",
            legal=f"the world size and these may change: {free_ones}",
            todo=f"set {name} back, or {start_new}",
        )
