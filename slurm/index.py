"""From a job's id to its run directory, also when SLURM has forgotten the job: links in ringtune's cache folder."""

from __future__ import annotations

from pathlib import Path

from ringtune.slurm.record import Record, runs_below
from ringtune.train.contract import UsageError, cache_folder

RECENT = 20


def remember(job_id: str, run: Path) -> None:
    """Keep where a job's run directory is; a later job of the same id replaces it (clusters start counting again)."""
    folder = cache_folder() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{job_id}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.absolute())
    temporary.rename(folder / job_id)


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
    if link.is_symlink() and link.exists():
        return runs_below(link.resolve())
    raise UsageError(
        target,
        "it is neither a folder nor a job id that was submitted from here",
        legal="a run directory or a job id",
        todo="see ringtune-slurm status for the latest",
    )


def latest() -> list[Path]:
    """Return the run directories of the latest jobs, newest first."""
    folder = cache_folder() / "slurm"
    links = sorted(folder.iterdir(), key=lambda each: -each.lstat().st_mtime) if folder.is_dir() else []
    targets = dict.fromkeys(each.resolve() for each in links if each.is_symlink() and each.exists())
    return [run for target in list(targets)[:RECENT] for run in runs_below(target)]
