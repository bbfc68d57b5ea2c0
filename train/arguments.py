"""What a user gave, as it was given: the flags of a command line and the keys of configuration files."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.train.contract import UsageError

REQUESTS = ("print_config", "help", "print_completion")
FLAGS_ONLY = ("config", "dry_run", *REQUESTS)
CONFIG_ENDINGS = (".json", ".yaml", ".yml")

Value = str | list[str] | dict[str, Any] | None
"""Text as on a command line; several words, or a list of a file; an object of a file; None for a flag without value."""


@dataclass
class Source:
    """The settings that stand in one place."""

    file: str = ""  # "": the command line
    settings: dict[str, Value] = field(default_factory=dict)  # name with underscores → value

    def where(self, name: str) -> str:
        """Return how a message names a setting of this source."""
        return f"{self.file}: {name}" if self.file else f"--{name}"


def read(argv: Sequence[str], lists: Collection[str] = ()) -> tuple[list[Source], list[str]]:
    """Return the sources, of which later ones win, and the flags that are requests, such as --help.

    lists: flags that take several values, one behind the other, as a shell writes a pattern, or the flag again; they
    become one, joined by commas. Flags win over files. A single first word FILE.json is one, as run_glue.py takes it.
    Raises UsageError.
    """
    words = ["--help" if word == "-h" else word for word in argv]
    if words and words[0].endswith(CONFIG_ENDINGS):
        words.insert(0, "--config")
    files: list[str] = []
    flags, requests = Source(), []
    for name, value in _flags(words):
        if name in REQUESTS:
            requests.append(f"--{name}" + (f"={value}" if value else ""))
        elif name == "config":
            files += value if isinstance(value, list) else [str(value or "")]
        elif name in lists:
            flags.settings[name] = _joined(flags.settings.get(name), value)
        else:
            flags.settings[name] = value
    if any(each.startswith("--help") for each in requests):
        return [], requests
    sources = [*map(_read_file, files), flags]
    if _wants_dry_run(sources):
        requests.append("--dry_run")
    return sources, requests


def _joined(*values: Value) -> Value:
    """Return the values of a flag that is there again, or that has several, as one. **Pure.**"""
    words: list[str] = []
    for value in values:
        words += [value] if isinstance(value, str) else list(value or ())
    return ",".join(words) if words else None


def _wants_dry_run(sources: Sequence[Source]) -> bool:
    """Take --dry_run, which --print_config writes too, out of the sources; return what the last of them says."""
    asked = [source.settings.pop("dry_run") for source in sources if "dry_run" in source.settings]
    last = str(asked[-1] or "true").lower() if asked else "false"
    if last not in ("true", "false"):
        raise UsageError("--dry_run", f"{last} is not taken", legal="true or false")
    return last == "true"


def _flags(words: Sequence[str]) -> Iterator[tuple[str, Value]]:
    """Yield each flag with its value; one without a value has None. **Pure.**"""
    index = 0
    while index < len(words):
        word = words[index]
        if not _is_flag(word):
            raise UsageError(word, "it belongs to no flag", legal="--name value", todo="see --help")
        index += 1
        name, equals, value = word[2:].partition("=")
        values = [value] if equals else []
        while index < len(words) and not _is_flag(words[index]):
            values.append(words[index])
            index += 1
        name = name.replace("-", "_")
        yield name, (values[0] if len(values) == 1 else values or None)


def _is_flag(word: str) -> bool:
    return word.startswith("--") and len(word) > 2


def _read_file(name: str) -> Source:
    """Return the settings of a YAML or JSON file. Raises UsageError."""
    import yaml

    where = f"--config {name}"
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
        pairs = _json_pairs(text) if name.endswith(".json") else _yaml_pairs(text)
    except OSError as error:
        raise UsageError(where, str(error.strerror), legal="a YAML or JSON file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 13 is a ValueError
        words = " ".join(str(error).split())[:300]
        raise UsageError(where, words, legal="YAML: one 'key: value' a line; or one JSON object") from None
    if not pairs:
        raise UsageError(where, "it holds no settings", legal="YAML: one 'key: value' a line; or one JSON object")
    source = Source(name)
    for key, value in pairs:
        if key in source.settings:  # the readers take the last one in silence
            raise UsageError(f"{name}: {key}", "it is there twice", legal="each key once")
        source.settings[key] = _text(value)
    return source


def _json_pairs(text: str) -> list[tuple[str, Any]]:
    levels: list[list[tuple[str, Any]]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        levels.append(pairs)
        return dict(pairs)

    return levels[-1] if isinstance(json.loads(text, object_pairs_hook=keep), dict) else []


def _yaml_pairs(text: str) -> list[tuple[str, Any]]:
    import yaml

    content, root = yaml.safe_load(text), yaml.compose(text)
    if not isinstance(content, Mapping) or not isinstance(root, yaml.MappingNode):
        return []
    names = [str(key.value) for key, _ in root.value]
    doubled = [(name, content.get(name)) for name in names if names.count(name) > 1]
    return doubled or [(str(key), value) for key, value in content.items()]


def _text(value: Any) -> str | list[str] | dict[str, Any]:
    """Return a value of a file as it would stand on a command line. **Pure.**"""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [str(_text(each)) for each in value]
    if isinstance(value, dict):
        return {str(key): float(each) if _is_scientific(each) else each for key, each in value.items()}
    return json.dumps(value) if isinstance(value, bool | None) else str(value)


def _is_scientific(value: Any) -> bool:
    """Return whether a value is text such as 1e-7, which YAML does not read as a number. **Pure.**"""
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) is not None
