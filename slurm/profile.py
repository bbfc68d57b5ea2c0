"""What is the same for every run on a cluster, from a YAML file: sbatch's defaults, set-up commands, the container."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtune.slurm import options
from ringtune.train.contract import UsageError

LEGAL = ("sbatch", "setup", "python", "launcher", "controller", "carry", "container")
LAUNCHERS = ("srun", "mpirun", "horovodrun")
RUNTIMES = ("apptainer", "singularity", "pyxis")
_EXAMPLE = "see the README for an example"


@dataclass(frozen=True)
class Container:
    """Where the ranks' program runs; the launcher and supervisors stay outside under apptainer, inside under pyxis."""

    runtime: str
    image: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """A cluster's defaults."""

    sbatch: Mapping[str, str | None] = field(default_factory=dict)
    setup: tuple[str, ...] = ()  # lines of the shell, before anything else in the job
    python: str = ""  # interpreter on the nodes; "": the one that submits
    launcher: str = "srun"
    controller: str = ""  # "": the launcher's default
    carry: tuple[str, ...] = ()  # patterns of variables for other nodes, where horovodrun starts the ranks
    container: Container | None = None


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the profile is looked for if none is named."""
    base = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ringtune" / "slurm.yaml"


def load(path: Path | None) -> Profile:
    """Return the profile of a file, of the user's own if none is named, empty if there is none. Raises UsageError."""
    if path is None:
        path = default_path()
        if not path.exists():
            return Profile()
    import yaml

    where = f"--profile {path}"
    try:
        # Every value as the text it is: YAML's own types would read the time 12:00:00 as the number 43200.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise UsageError(where, str(error.strerror), legal="a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(where, " ".join(str(error).split())[:300], legal="YAML") from None
    return parse(content or {}, where)


def parse(content: Any, where: str) -> Profile:
    """Return the profile of the YAML, all its values text. **Pure.** Raises UsageError naming the entry."""
    if not isinstance(content, dict):
        raise UsageError(
            where, f"it holds {type(content).__name__}, not entries", legal=", ".join(LEGAL), todo=_EXAMPLE
        )
    for name in content:
        if name not in LEGAL:
            raise UsageError(f"{where}: {name}", "unknown entry", legal=", ".join(LEGAL), todo=_EXAMPLE)
    sbatch = content.get("sbatch") or {}
    if not isinstance(sbatch, dict):
        raise UsageError(
            f"{where}: sbatch", f"{sbatch!r} are not options", legal="name: value, a line each", todo=_EXAMPLE
        )
    for name in sbatch:
        options.refuse_ours(name, f"{where}: sbatch: {name}")
    launcher = str(content.get("launcher", "srun"))
    if launcher not in LAUNCHERS:
        raise UsageError(f"{where}: launcher", f"{launcher!r} is none", legal=", ".join(LAUNCHERS))
    return Profile(
        sbatch={
            str(name): _value(f"{where}: sbatch: {name}", value) for name, value in sbatch.items() if value != "false"
        },
        setup=_lines(content.get("setup"), f"{where}: setup"),
        python=str(content.get("python") or ""),
        launcher=launcher,
        controller=str(content.get("controller") or ""),
        carry=_lines(content.get("carry"), f"{where}: carry"),
        container=_container(content.get("container"), f"{where}: container"),
    )


def _value(where: str, value: Any) -> str | None:
    """Return an option's value, None for ``true``: an option without one."""
    if not isinstance(value, str):
        raise UsageError(where, f"{value!r} is no value", legal="text, a number or true")
    return None if value in ("", "true") else value


def _lines(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.splitlines())
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise UsageError(where, f"{value!r} are not lines", legal="a list of lines of the shell", todo=_EXAMPLE)
    return tuple(line for each in value for line in each.splitlines())


def _container(value: Any, where: str) -> Container | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not set(value) <= {"runtime", "image", "options"} or not value.get("image"):
        raise UsageError(where, f"{value!r} is not understood", legal="runtime, image, options", todo=_EXAMPLE)
    runtime = str(value.get("runtime", "apptainer"))
    if runtime not in RUNTIMES:
        raise UsageError(f"{where}: runtime", f"{runtime!r} is none", legal=", ".join(RUNTIMES))
    return Container(runtime, str(value["image"]), _lines(value.get("options"), f"{where}: options"))
