"""From a job's id to its run directory, also when SLURM has forgotten the job: links in ringtune's cache folder."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from ringtune.slurm.record import EVENTS_FILE, SWEEP_FILE, Record, runs_below
from ringtune.train.contract import SLURM_DIR, UsageError, cache_folder

RECENT = 20


def remember(runs: Mapping[str, Path]) -> None:
    """Keep where the run directories of jobs are, by job id; a later job of the same id replaces an earlier one
    (clusters start counting again).

    Where they cannot be kept, on a compute node whose home is full or read-only, that is reported: the jobs need none
    of it, and their run directories can be named.
    """
    try:
        folder = cache_folder() / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        for job_id, run in runs.items():
            _link(folder / job_id, run.absolute())
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        print(
            f"ringtune-slurm: {', '.join(list(runs)[:3])}: not kept by job id ({error}); status and logs take the run "
            "directory",
            file=sys.stderr,
            flush=True,
        )


def _link(path: Path, run: Path) -> None:
    # Of its own name: where the job is submitted and where it starts, it may be linked at the same time.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.symlink_to(run)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def find(target: str) -> list[Path]:
    """Return the run directories that a folder or a job id means. Raises UsageError if it means none."""
    path = Path(target)
    if path.is_dir():
        runs = runs_below(path.absolute())
        if not any(Record(run) for run in runs):
            raise UsageError(
                target,
                "no job was ever submitted for it",
                legal="a run directory of ringtune-slurm submit, or a job id",
                todo="see ringtune-slurm status for the latest",
            )
        return runs
    link = cache_folder() / "slurm" / target
    if link.is_symlink() and link.exists() and (runs := _runs_of(target, link.resolve())):
        return runs
    raise UsageError(
        target,
        "it is neither a folder nor a job id that was submitted from here",
        legal="a run directory or a job id",
        todo="see ringtune-slurm status for the latest",
    )


def _runs_of(job_id: str, folder: Path) -> list[Path]:
    """Return the runs that a job trains: of an array those that have had a task of it, for the folder may hold runs of
    other submissions, and its list of runs be that of a later one."""
    if not (folder / SLURM_DIR / SWEEP_FILE).exists():
        return [folder]
    others = sorted(path.parents[1] for path in folder.glob(f"*/{SLURM_DIR}/{EVENTS_FILE}"))
    return [run for run in dict.fromkeys([*_listed(folder), *others]) if _had(run, job_id)]


def _had(run: Path, job_id: str) -> bool:
    return any(str(each.get("job_id", "")).startswith(f"{job_id}_") for each in Record(run).events())


def latest() -> list[Path]:
    """Return the run directories of the latest jobs, newest first."""
    folder = cache_folder() / "slurm"
    kept = [each for each in folder.iterdir() if not each.name.startswith(".")] if folder.is_dir() else []
    links = sorted(kept, key=lambda each: -each.lstat().st_mtime)
    targets = dict.fromkeys(each.resolve() for each in links if each.is_symlink() and each.exists())
    return [run for target in list(targets)[:RECENT] for run in _listed(target)]


def _listed(folder: Path) -> list[Path]:
    """Return the runs of a folder, none where its list is damaged, which is reported: others are not hidden by it."""
    try:
        return runs_below(folder)
    except UsageError as error:
        print(f"ringtune-slurm: {error}", file=sys.stderr)
        return []
