"""One rank of a command: arguments in, exit code out, every error reported once."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from ringtune.train import hub
from ringtune.train.contract import (
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_UNREAD,
    EXIT_USAGE,
    OutOfMemory,
    StopRequested,
    UsageError,
    as_usage,
    output_is_closed,
    promised_rank,
    promised_size,
    rank_message,
)
from ringtune.train.orphan import end_with_launcher

REPORT_GRACE_S = 10.0
#: A rank that failed alone speaks this much before the others, which only notice that it is gone, end the job.
ALONE_MARGIN_S = 2.0


def main(name: str, parse: Callable[[], tuple[Any, bool]], load_work: Callable[[], Callable[..., int]]) -> None:
    """Run a command on this rank and leave the process with its exit code.

    parse: gives the settings and whether only a dry run is wanted. load_work: imports what is slow to import and gives
    the work, a function of settings, comm, stop and ``dry_run``.
    """
    try:
        settings, dry_run = parse()
    except UsageError as error:
        if promised_rank() == 0:
            print(f"{name}: {error}", file=sys.stderr)
        else:
            # All ranks fail alike here, before they can communicate; unless the files of this one's host differ.
            _let_the_reporting_rank_end_first()
            _report_alone(name, error, None)
        sys.exit(EXIT_USAGE)
    end_with_launcher()
    _quieten_libraries()
    leave(_work(name, settings, load_work, dry_run=dry_run))


def _work(name: str, settings: Any, load_work: Callable[[], Callable[..., int]], *, dry_run: bool) -> int:
    from ringtune.train.stop import StopFlag

    stop = StopFlag()
    stop.listen(terminal=promised_size() == 1)  # before the slow imports: a signal during start-up counts, too
    names = [getattr(settings, field, None) for field in ("model_name_or_path", "dataset_name")]
    hub.stay_offline_if_unreachable(names, print)  # each rank for itself: one may be the only one without a network
    try:
        from ringtune.train.comm import Comm, PeerFailed
        from ringtune.train.imports import leave_out_unused
        from ringtune.train.step import NotFinite

        leave_out_unused()
        work = load_work()
    except ImportError as error:
        print(f"{name}: installation: {error}; run ringtune-launch horovod, then try again", file=sys.stderr)
        return EXIT_USAGE
    comm = unreported = None
    reports = True
    try:
        comm = Comm(timeline=getattr(settings, "profile_steps", None) is not None)
        code = work(settings, comm, stop, dry_run=dry_run)
    except PeerFailed as failed:
        code, reports = failed.exit_code, False
    except (UsageError, NotFinite) as error:
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
        reports = promised_rank() == 0 if comm is None else comm.reports_error  # outside collectives all fail alike
        if reports:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        else:
            unreported = error
    except StopRequested:
        if comm is not None and comm.rank == 0:
            print("stopped on request before the first step; the same command starts again", flush=True)
        code = EXIT_REQUEUE
    except Exception as error:
        _die(name, comm, error)
    if comm is not None:
        comm.close()
    if not reports:
        _let_the_reporting_rank_end_first(unreported is not None)
        if not stop.is_set():  # else the launcher ends the job: another rank has failed, and told why
            _report_alone(name, unreported, comm)
    return code


def _die(name: str, comm: object, error: BaseException) -> None:
    """Report this rank's failure and end the process at once, so that the launcher ends the other ranks.

    A rank that only notices that another one is gone stays silent: its traceback would hide the cause.
    """
    if isinstance(error, BrokenPipeError) and output_is_closed():
        os._exit(EXIT_UNREAD)  # who read this rank's words, `head` perhaps, has had enough of them
    if isinstance(error, getattr(comm, "Broken", ())):
        _let_the_reporting_rank_end_first()
        leave(EXIT_FAILED)
    rank, size = getattr(comm, "rank", promised_rank()), getattr(comm, "size", promised_size())
    usage = as_usage(error)
    if isinstance(usage, UsageError):
        words = rank_message(rank, size, str(usage)) if isinstance(error, OutOfMemory) else str(usage)
        print(f"{name}: {words}", file=sys.stderr, flush=True)
        leave(EXIT_USAGE)
    text = "".join(traceback.format_exception(error))
    print(rank_message(rank, size, text), file=sys.stderr, flush=True)
    leave(EXIT_FAILED)


def _let_the_reporting_rank_end_first(speaks: bool = False) -> None:
    """Wait for the launcher, which ends the job at the first exit and names it: it should be that of the cause.

    speaks: whether this rank, if it is still there then, has an error that others may not have.
    """
    time.sleep(REPORT_GRACE_S - (ALONE_MARGIN_S if speaks else 0))


def _report_alone(name: str, error: Exception | None, comm: object) -> None:
    """Report an error that all ranks should have had and rank 0 reported, had the launcher ended the job since."""
    if error is not None:
        rank, size = getattr(comm, "rank", promised_rank()), getattr(comm, "size", promised_size())
        print(rank_message(rank, size, f"{name}: {error}"), file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """End the process without waiting for threads that may hang in a broken collective."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _quieten_libraries() -> None:
    """Switch off the libraries' own bars, advice and parallel tokenisers in a job of many ranks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # of torch's profiler; 5 prints that it starts and stops
