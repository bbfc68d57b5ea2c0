"""Which environment variables reach the ranks: on this machine all; on other hosts what finds and tunes programs, what
the user names, and Horovod's settings."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringtune.train.contract import CONTROL_VARIABLE, UsageError

#: Carried to other hosts without -x: variables by which programs and libraries are found and tuned. Not HOME, USER or
#: TMPDIR, which differ between hosts.
CARRIED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHON*",
    "VIRTUAL_ENV",
    "CONDA_*",
    "LANG",
    "LC_*",
    "TZ",
    "OMP_*",
    "MKL_*",
    "KMP_*",
    "HOROVOD_*",
    "NCCL_*",
    "CUDA_*",
    "TORCH*",
    "PYTORCH_*",
    "HF_*",
    "TRANSFORMERS_*",
    "TOKENIZERS_*",
    "RINGTUNE_*",
)
#: Which GPUs of a host to use. They are true of one host only: another may have others, and SLURM sets them for each.
GPU_CHOICE = ("*_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
#: Variables that the launcher's own process needs on this machine; ranks beside it inherit them.
LOCAL = (
    *GPU_CHOICE,
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TMPDIR",
    "SSH_*",
    "SLURM_*",
    "XDG_*",
    "MUNGE*",
    "OMPI_*",
    "PRTE_*",
    "PMIX_*",
    "UCX_*",
    "FI_*",
)
#: What is of one host, login or shell: carried to others by its whole name only, and never missed there.
OF_ONE_HOST = (
    *GPU_CHOICE,
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "SHLVL",
    "PWD",
    "OLDPWD",
    "_",
    "HOSTNAME",
    "TERM",
    "TERM_*",
    "COLORTERM",
    "TMPDIR",
    "MAIL",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS*",
    "LS_COLORS",
    "PS[0-9]",
    "HIST*",
    "DISPLAY",
    "DBUS_*",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_*",
    "XDG_SEAT",
    "XDG_VTNR",
    "SSH_*",
    "SUDO_*",
    "TMUX*",
    "STY",
    "BASH_FUNC_*",
    "MAKE*",
    "MFLAGS",
    "SLURM*",
    "PBS_*",
    "OAR_*",
    "LSB_*",
    "MUNGE*",
    "OMPI_*",
    "PRTE_*",
    "PMIX_*",
    "RINGTUNE_CONTROL",
)
MOST_NAMED = 12  # variables in one line
_SECRET = re.compile(
    r"TOKEN|SECRET|PASS(W|PHRASE|_|$)|CREDENTIAL|PRIVATE|(API|_|^)KEY(_|$)|^RINGTUNE_CONTROL$", re.IGNORECASE
)
_NOT_SECRET = ("TOKENIZERS_PARALLELISM",)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Setting:
    """One of Horovod's settings: its flag, as horovodrun spells it, and its variable."""

    flag: str
    variable: str
    help: str
    kind: type = str  # bool: a flag without a value
    factor: int = 1  # unit of the variable / unit of the flag
    choices: tuple[str, ...] | None = None  # the legal values, if there are only some


HOROVOD_SETTINGS = (
    Setting(
        "fusion-threshold-mb",
        "HOROVOD_FUSION_THRESHOLD",
        "small gradients are joined up to this size, in MB",
        int,
        1 << 20,
    ),
    Setting("cycle-time-ms", "HOROVOD_CYCLE_TIME", "how often Horovod looks for work, in ms", float),
    Setting("cache-capacity", "HOROVOD_CACHE_CAPACITY", "collectives whose agreement is remembered", int),
    Setting("hierarchical-allreduce", "HOROVOD_HIERARCHICAL_ALLREDUCE", "reduce within a host first", bool),
    Setting("autotune", "HOROVOD_AUTOTUNE", "let Horovod search for the best of these", bool),
    Setting("autotune-log-file", "HOROVOD_AUTOTUNE_LOG", "CSV file of what it tried"),
    Setting("timeline-filename", "HOROVOD_TIMELINE", "trace of every collective, for chrome://tracing"),
    Setting(
        "stall-check-warning-time-seconds",
        "HOROVOD_STALL_CHECK_TIME_SECONDS",
        "warn of a rank that others wait for",
        int,
    ),
    Setting("stall-check-shutdown-time-seconds", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", "end the job then", int),
    Setting("num-nccl-streams", "HOROVOD_NUM_NCCL_STREAMS", "NCCL streams per GPU", int),
    Setting(
        "log-level",
        "HOROVOD_LOG_LEVEL",
        "TRACE, DEBUG, INFO, WARNING, ERROR or FATAL",
        choices=("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL"),
    ),
)


def is_carried(name: str) -> bool:
    """Return whether a variable reaches other hosts without -x. **Pure.** A secret never does."""
    return not is_secret(name) and not is_gpu_choice(name) and _matches(name, CARRIED)


def is_gpu_choice(name: str) -> bool:
    """Return whether a variable names the GPUs to use, which is true of one host only. **Pure.**"""
    return _matches(name, GPU_CHOICE)


def is_secret(name: str) -> bool:
    """Return whether a variable is a secret, judged by its name. **Pure.**"""
    return bool(_SECRET.search(name)) and name not in _NOT_SECRET


def shown(name: str, value: str) -> str:
    """Return ``NAME=value`` for people, without secrets. **Pure.**"""
    return f"{name}={'(not shown)' if is_secret(name) else value}"


def for_ranks(
    environ: Mapping[str, str], asked: Sequence[str], settings: Mapping[str, str], patterns: Sequence[str] = ()
) -> dict[str, str]:
    """Return the variables that every rank gets. **Pure.**

    asked: ``NAME`` (this environment's value) or ``NAME=VALUE``, as with mpirun's ``-x``. patterns: of names, as a
    shell matches them; what is of one host, or a secret, needs its whole name.
    Raises UsageError for one that is no name or is not set.
    """
    result = {name: value for name, value in environ.items() if is_carried(name)}
    for pattern in patterns:
        result |= {name: environ[name] for name in matching(environ, pattern)}
    for item in asked:
        name, equals, value = item.partition("=")
        if not _NAME.fullmatch(name):
            raise UsageError("-x", f"{item!r} names no variable", legal="NAME or NAME=VALUE")
        if not equals and name not in environ:
            raise UsageError("-x", f"{name} is not set here", legal="a variable of this environment, or NAME=VALUE")
        result[name] = value if equals else environ[name]
    return {**result, **settings}


def matching(environ: Mapping[str, str], pattern: str) -> list[str]:
    """Return the names that a pattern of --carry means. **Pure.** Raises UsageError for one that can mean none.

    Secrets are named by the user one by one: horovodrun shows values on command lines.
    """
    if not re.fullmatch(r"[A-Za-z0-9_*?\[\]!-]+", pattern):
        raise UsageError("--carry", f"{pattern!r} matches no name", legal="a pattern of names, such as 'WANDB_*'")
    names = [name for name in environ if _NAME.fullmatch(name) and fnmatch.fnmatchcase(name, pattern)]
    return [name for name in names if name == pattern or not (_matches(name, OF_ONE_HOST) or is_secret(name))]


def on_this_machine(environ: Mapping[str, str], carried: Mapping[str, str]) -> dict[str, str]:
    """Return what ranks on this machine get beside what is carried to all: all else that is set. **Pure.**"""
    return {name: value for name, value in environ.items() if name not in carried and name != CONTROL_VARIABLE}


def not_carried(environ: Mapping[str, str], carried: Mapping[str, str]) -> str:
    """Return the line that names what other hosts do not get, "" if there is nothing that one could miss. **Pure.**"""
    names = sorted(name for name in environ if name not in carried and not _matches(name, OF_ONE_HOST))
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"not carried to other hosts: {', '.join(names[:MOST_NAMED])}{more}; -x NAME or --carry PATTERN carries them"


def for_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the launcher's own process needs on this machine. **Pure.**"""
    return {name: value for name, value in environ.items() if _matches(name, LOCAL)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, each) for each in patterns)


def horovod_settings(values: Mapping[str, object]) -> dict[str, str]:
    """Return Horovod's variables for the flags that are given (flag → value; None or False: not given). **Pure.**

    Raises UsageError for a number out of range.
    """
    result = {}
    for each in HOROVOD_SETTINGS:
        value = values.get(each.flag.replace("-", "_"))
        if value is None or value is False:
            continue
        if each.kind in (int, float):
            number = each.kind(str(value))
            if not 0 <= number < float("inf"):
                raise UsageError(f"--{each.flag}", f"{value} is out of range", legal="a number from 0")
            result[each.variable] = str(number * each.factor)
        else:
            result[each.variable] = "1" if value is True else str(value)
    return result
