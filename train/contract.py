"""Everything that launcher, batch job and ranks must agree on; standard library only.

They share nothing but argv, environment variables, one signal, exit codes and the run directory. The names and values
that both sides use are defined here, once.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXIT_FINISHED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
#: Stopped on request with a checkpoint; the same command goes on from it. ``EX_TEMPFAIL`` of sysexits.h.
EXIT_REQUEUE = 75
#: A trial of a search that was ended because others do better; it has finished, and running it again changes nothing.
EXIT_PRUNED = 76
#: How a rank ends that nothing is wrong with.
ORDERLY = (EXIT_FINISHED, EXIT_REQUEUE, EXIT_PRUNED)
#: Nobody reads the output any more, as when `head` has its lines: what a shell shows for a program that ends by it.
EXIT_UNREAD = 128 + signal.SIGPIPE

#: Either one, on any rank, asks every rank to save and leave. SLURM sends SIGTERM before it kills; SIGUSR1 is the
#: contract's own, for ``sbatch --signal``.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# The run directory (DESIGN section 4).
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIR = "tensorboard"
PREDICTIONS_FILE = "predict_results.txt"  # of the final model, for the test rows
PROFILE_DIR = "profile"
CHECKPOINT_PREFIX = "checkpoint-"
BEST_LINK = "best"
FINISHED_FILE = "finished.json"
TASK_FILE = "task.json"  # of a checkpoint or final model: what a row means
#: The same with what the evaluation of a checkpoint fitted, such as thresholds: the checkpoint is older than that.
FITTED_TASK_FILE = "task.fitted.json"
SET_ASIDE_PREFIX = "set-aside-"  # of folders with what no longer belongs to the run
#: Temporary names that a killed process may leave: of a file that was being replaced, of a folder being written or
#: removed.
LEFT_BEHIND = re.compile(r"\..+\.(\d+|[0-9a-f]{8})\.(tmp|old)")
TRIAL_FILE = "trial.json"  # in the run directory of a trial: its number and settings
SEARCH_DIR = "search"  # beside the run directories of a search's trials: what they share
LOCK_FILE = ".lock"  # held while a run is alive in the directory
HOLDER_FILE = ".lock.holder"  # who holds it
MANIFEST_FILE = "manifest.json"  # of a checkpoint; written last
SLURM_DIR = "slurm"  # what a batch job keeps there: its script, its record, its logs
#: What a launcher writes beside the ranks' logs when the job has ended.
VERDICT_FILE = "verdict.json"

#: The variables in which each launcher passes a process its rank and the number of processes, before Horovod or MPI
#: have started. (Open MPI, Horovod's Gloo controller, MPICH's Hydra, SLURM.)
RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
SIZE_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
#: The same by torchrun and `accelerate launch`, which Horovod knows nothing of, and by ringtune-launch.
TORCH_RANK, TORCH_SIZE = "RANK", "WORLD_SIZE"
LOCAL_RANK_VARIABLES = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
LOCAL_SIZE_VARIABLES = ("HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

#: The hosts and ranks that a launcher promises, as ``a:2,b:1``; each worker checks them against what it got.
PROMISE_VARIABLE = "RINGTUNE_HOSTS"
#: Where each rank's supervisor finds the launcher: ``ADDRESS,PORT,TOKEN``.
CONTROL_VARIABLE = "RINGTUNE_CONTROL"


class UsageError(Exception):
    """An error the user can fix: ends in one line and exit code 2, never in a traceback.

    The line reads ``where: what is wrong, with the value; what is legal; what to do``.
    """

    def __init__(self, where: str, wrong: str, *, legal: str = "", todo: str = "") -> None:
        super().__init__(where, wrong)
        self.where, self.wrong, self.legal, self.todo = where, wrong, legal, todo

    def __str__(self) -> str:
        line = f"{self.where}: " + "; ".join(part for part in (self.wrong, self.legal, self.todo) if part)
        return " ".join(line.split())


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what a user may have meant by a flag or key that is not known, in words; "" for nothing near. **Pure.**"""
    names = {each.lstrip("-"): each for each in sorted(known)}
    near = difflib.get_close_matches(name.lstrip("-"), names, n=1)
    return f"nearest is {names[near[0]]}" if near else ""


#: Disk errors that mean no room, no permission, a folder where a file should be, or a bad path
#: (errno(3)).
_FIXABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


class OutOfMemory(Exception):
    """One rank has no memory left, while the others wait for it: it ends at once, reporting ``usage``."""

    def __init__(self, usage: UsageError) -> None:
        super().__init__(str(usage))
        self.usage = usage


def as_usage(error: BaseException) -> BaseException:
    """Return an error of disk or memory that the user can fix as a UsageError, any other as it is. **Pure.**"""
    if isinstance(error, OutOfMemory):
        return error.usage
    if not isinstance(error, OSError) or error.errno not in _FIXABLE:
        return error
    where = error.filename2 or error.filename or "disk"
    return UsageError(
        str(where),
        str(error.strerror),
        legal="free space, and permission to write there",
        todo="run again when that is fixed",
    )


class StopRequested(Exception):
    """A stop was requested: the work ends early, in an orderly way."""


def cache_folder(chosen: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where ringtune keeps what can be made again: as chosen, $RINGTUNE_CACHE, or ~/.cache/ringtune."""
    return Path(chosen or environ.get("RINGTUNE_CACHE") or Path.home() / ".cache" / "ringtune")


def refuse_file(folder: Path) -> None:
    """Raise UsageError if a file stands where a folder of runs, or one that it lies in, is or would be."""
    first = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if first.exists() and not first.is_dir():
        what = "it" if first == folder else str(first)
        raise UsageError(
            f"--output_dir {folder}", f"{what} is not a folder", legal="a new or empty folder, or one of a run"
        )


def holds_run(folder: Path, ours: Collection[str] = ()) -> bool:
    """Return whether a run is in the folder already; changes nothing.

    A run has its settings there, or a checkpoint, or has finished: one file that is lost does not make it another's.
    ours: what may be there before the run is, beside its lock, its batch job's files and what a killed process left.
    Raises UsageError if the folder is not a folder, or holds something else than a run.
    """
    refuse_file(folder)
    if not folder.exists():
        return False
    signs = [folder / CONFIG_FILE, folder / FINISHED_FILE, *folder.glob(f"{CHECKPOINT_PREFIX}*/{MANIFEST_FILE}")]
    if any(each.exists() for each in signs):
        return True
    ours = {LOCK_FILE, HOLDER_FILE, SLURM_DIR, TRIAL_FILE, *ours}
    names = sorted(each.name for each in folder.iterdir())
    foreign = [name for name in names if name not in ours and not LEFT_BEHIND.fullmatch(name)]
    if foreign:
        raise UsageError(
            f"--output_dir {folder}",
            f"it holds {foreign[0]} and no {CONFIG_FILE}: not a run of ringtune",
            legal="a new or empty folder, or one of a run",
            todo="choose another; nothing was written",
        )
    return False


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of one JSON object a line, without lines that are cut off or damaged, or that are
    not ours: each record says of which event it is."""
    found = (record_of(line) for line in path.read_bytes().split(b"\n"))
    return [each for each in found if each is not None and isinstance(each.get("event"), str)]


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, None if it holds none. **Pure.**"""
    try:
        found = json.loads(line)
    except ValueError:  # not UTF-8, not JSON
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step", 0), int) else None


def first_integer(names: tuple[str, ...], environ: Mapping[str, str]) -> int | None:
    """Return the first of the variables that is set, as an integer. **Pure.**"""
    return next((int(environ[name]) for name in names if environ.get(name, "").isdigit()), None)


def promised_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Return the rank the launcher gave this process, 0 without a launcher."""
    return first_integer((*RANK_VARIABLES, TORCH_RANK), environ) or 0


def promised_size(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes the launcher started, 1 without a launcher."""
    return first_integer((*SIZE_VARIABLES, TORCH_SIZE), environ) or 1


Placement = tuple[str, int, int]
"""Host, local rank and local size of one rank."""


def promised_placements(promise: str) -> list[Placement]:
    """Return the placement of every rank of a promise such as ``a:2,b:1``. **Pure.**"""
    hosts = [entry.rpartition(":")[::2] for entry in promise.split(",")]
    return [(name, local_rank, int(slots)) for name, slots in hosts for local_rank in range(int(slots))]


def broken_promises(promised: Sequence[Placement], found: Sequence[Placement]) -> list[str]:
    """Return how the ranks' placements differ from the promised ones, a phrase each. **Pure.**

    Hosts are compared by who shares one, because a host may know itself by another name than the user does.
    """
    if len(promised) != len(found):
        return [f"{len(promised)} ranks were promised, there are {len(found)}"]
    wrong = []
    names: dict[str, str] = {}  # the promised name → the host's own
    for rank, ((host, *promised_placement), (own_name, *placement)) in enumerate(zip(promised, found, strict=True)):
        if placement != promised_placement:
            wrong.append(
                f"rank {rank} (host {own_name}) has local rank {placement[0]} of {placement[1]}, promised "
                f"{promised_placement[0]} of {promised_placement[1]}"
            )
        if names.setdefault(host, own_name) != own_name:
            wrong.append(f"rank {rank} is on host {own_name}, promised {host}, which is {names[host]}")
    if len(set(names.values())) < len(names):
        wrong.append(f"the hosts promised as {', '.join(names)} are really {', '.join(names.values())}")
    return wrong


def rank_message(rank: int, size: int, message: str) -> str:
    """Return a rank's message with its rank and host in front: ``rank R of N (host H): ...``."""
    return f"rank {rank} of {size} (host {socket.gethostname()}): {message}"


@contextmanager
def output_may_be_closed(exit_code: int = EXIT_UNREAD) -> Iterator[None]:
    """Leave the process with ``exit_code``, and without a word, if what the block writes has no reader any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What Python still holds is written when it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(exit_code)


def output_is_closed() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    watch = select.poll()
    watch.register(1, 0)  # errors are told without being asked for
    return any(events & select.POLLERR for _, events in watch.poll(0))
