"""``ringtune-launch tune``: find out by measuring how a run is computed fastest on its hosts."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringtune.launch import allocation, commands, search, tuned
from ringtune.launch.choices import Choice, Space, placements
from ringtune.launch.hosts import Host
from ringtune.launch.preflight import Report, check
from ringtune.launch.run import LaunchRequest, make_plan
from ringtune.launch.steptimes import LEAST_STEPS
from ringtune.launch.trial import Program
from ringtune.train.contract import EXIT_FAILED, EXIT_FINISHED, EXIT_USAGE, UsageError

PROGRAM = "ringtune-train"
#: Settings that would change what the trials are for: setting → why it is refused, and what to do.
REFUSED = {
    "per_device_train_batch_size": ("it is what is tuned", "give --global_batch_size and leave it out"),
    "resume_from_checkpoint": ("trials start at the model", "leave it out"),
    "overwrite_output_dir": ("trials write to a folder of their own", "leave it out"),
    "profile_steps": ("a profile would be measured with the steps", "leave it out"),
}


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for."""

    launch: LaunchRequest  # its command is ringtune-train with its flags
    shared_flags: tuple[str, ...]  # of ringtune-launch run, for every trial
    budget_s: float
    steps: int
    warm_up: int
    output: Path
    scratch: Path | None
    cache: Path | None
    again: bool
    dry_run: bool


def tune(request: TuneRequest, environ: Mapping[str, str] = os.environ) -> int:
    """Measure, print what was found, write and keep it; return the exit code. Raises UsageError."""
    if request.steps < LEAST_STEPS:
        raise UsageError("--steps", f"{request.steps} steps distinguish nothing", legal=f"from {LEAST_STEPS}")
    tuned.require_output(request.output)
    program, settings = resolve(request.launch.command)
    refuse(settings)
    reports = check(make_plan(_reaching(request.launch, program, environ), environ))
    space = survey(request.launch, settings, reports, environ)
    if not placements(space):
        raise UsageError(
            "-np",
            f"{space.batch} rows in {space.num_shards or 'any number of'} shards cannot be dealt to "
            f"{space.num_proc or 'the'} rank(s)",
            legal="ranks that divide --num_shards, and no more than rows per step",
        )
    machine = describe(space, reports, request)
    path = tuned.path_of(machine, request.cache)
    if request.dry_run:
        print(listing(space, request))
        return EXIT_FINISHED
    record = None if request.again else tuned.load(machine, path)
    if record is not None and (not record.left_out or request.budget_s <= record.budget_s):
        print(f"measured on {record.date} on this kind of machine ({path}); --again measures again")
        return _conclude(record, space, request)
    record = _search(request, space, program, machine, reports)
    if record is None:
        return 128 + signal.SIGINT
    if record.best is not None:
        tuned.save(record, path)
        print(f"kept for this kind of machine in {path}")
    return _conclude(record, space, request)


def resolve(command: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return ringtune-train without its flags, and all of its settings. Raises UsageError."""
    import yaml

    if not command or Path(command[0]).name != PROGRAM:
        raise UsageError(
            "command", f"{shlex.join(command) or 'none'} is not {PROGRAM}", legal=f"tune -- {PROGRAM} FLAGS"
        )
    for word in command[1:]:
        if word.partition("=")[0].replace("-", "_").strip("_") in ("dry_run", "print_config", "help", "h"):
            raise UsageError(word, "it trains nothing", todo="leave it out; tune has a --dry-run of its own")
    program = commands.which(command[0]) or command[0]
    try:
        done = subprocess.run([program, *command[1:], "--print_config"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(command[0], str(error.strerror), legal=PROGRAM) from None
    if done.returncode:
        words = (done.stderr.strip() or "no output").splitlines()[-1]
        raise UsageError("command", words.removeprefix(f"{PROGRAM}: "), todo=f"see {PROGRAM} --help")
    sys.stderr.write(done.stderr)
    settings = yaml.safe_load(done.stdout)
    settings.pop("dry_run", None)
    return (program,), settings


def refuse(settings: Mapping[str, Any]) -> None:
    """Raise UsageError for settings with which a trial would compute something else, or touch the run's folder."""
    for name, (why, todo) in REFUSED.items():
        if settings.get(name):
            raise UsageError(f"--{name}", f"{settings[name]}: {why}", todo=todo)
    if settings["gradient_accumulation_steps"] and settings["mode"] == "exact":
        raise UsageError(
            "--gradient_accumulation_steps", "in exact mode the shards belong to the run", todo="give --num_shards"
        )


def _reaching(launch: LaunchRequest, program: Sequence[str], environ: Mapping[str, str]) -> LaunchRequest:
    """Return a request for a rank on every slot, to look at the hosts."""
    named = launch.hosts or launch.hostfile or allocation.is_of_a_batch_system(environ)
    return replace(launch, command=tuple(program), num_proc=launch.num_proc if named or launch.num_proc else 1)


def survey(
    launch: LaunchRequest, settings: Mapping[str, Any], reports: Sequence[Report], environ: Mapping[str, str]
) -> Space:
    """Return what there is to choose from on these hosts."""
    facts = [each.facts for each in reports if each.facts is not None]
    cores = min(each["num_cores"] for each in facts)
    gpus = 0 if settings["use_cpu"] else min(len(each["gpus"]) for each in facts)
    found = allocation.find(launch.hosts, launch.hostfile, launch.num_proc or 1, environ, launch.ranks_per_node)
    is_here = found.source == "this machine"
    hosts = (Host(allocation.LOCAL, launch.num_proc or gpus or cores),) if is_here else found.hosts
    if found.is_counted and not gpus and launch.ranks_per_node is None and launch.num_proc is None:
        hosts = tuple(Host(host.name, cores) for host in hosts)  # one for each node, which nobody has asked for
    fixed = {"fusion_mb": "HOROVOD_FUSION_THRESHOLD", "cycle_ms": "HOROVOD_CYCLE_TIME"}
    return Space(
        hosts,
        cores,
        gpus,
        settings,
        launch.num_proc,
        frozenset(name for name, variable in fixed.items() if variable in environ),
    )


def describe(space: Space, reports: Sequence[Report], request: TuneRequest) -> dict[str, Any]:
    """Return everything that the fastest choice depends on: hosts, software, the run's own settings. **Pure.**"""
    facts = [each.facts for each in reports if each.facts is not None]
    places = ("output_dir", "cache_dir", "seed", "learning_rate", "num_train_epochs", "max_steps")
    return {
        "hosts": [
            {"slots": host.slots, **{name: each[name] for name in ("processor", "num_cores", "gpus", "link_speed")}}
            for host, each in zip(space.hosts, facts, strict=False)
        ],
        "python": facts[0]["python"],
        "versions": facts[0]["versions"],
        "settings": {name: value for name, value in space.settings.items() if name not in places},
        "ranks": space.num_proc,
        "fixed": sorted(space.fixed),
        "launch": list(request.shared_flags),
    }


def hosts_flags(space: Space, choice: Choice, is_here: bool) -> list[str]:
    """Return the flags of ringtune-launch run that say where a choice runs. **Pure.**"""
    total = ["-np", str(space.total(choice))]
    if is_here:
        return total
    most = choice.ranks if space.num_proc is None else max(host.slots for host in space.hosts)
    return [*total, "-H", ",".join(str(Host(host.name, min(host.slots, most))) for host in space.hosts)]


def listing(space: Space, request: TuneRequest) -> str:
    """Return the trials that would be made, for people. **Pure.**"""
    each_trial = f"{request.warm_up} steps to warm up, {request.steps} measured, {space.batch} rows a step"
    lines = [f"trials within {request.budget_s:.0f} s, each a launch of its own: {each_trial}"]
    for number, (name, found) in enumerate(search.plan(space)):
        lines.append(f"{name}:" if number == 0 else f"{name}, with the fastest so far; if it were the first one:")
        lines += [f"  {each}" for each in found]
    lines += [per_host(space)] * (len(space.hosts) > 1)
    lines += [memory_note(space), "the fastest and the one next to it again", "dry run: nothing was started"]
    return "\n".join(lines)


def per_host(space: Space) -> str:
    """Return what a choice's ranks are of, in words. **Pure.**"""
    return f"{len(space.hosts)} hosts: ranks and threads are those of each"


def memory_note(space: Space) -> str:
    """Return how the memory limits the search, in words. **Pure.**"""
    if space.gpus:
        return "first of all, the largest shard that fits into the memory of the GPUs"
    return "no GPU computes: the search for the largest shard that fits into its memory is left out"


def _search(
    request: TuneRequest, space: Space, program: Sequence[str], machine: Mapping[str, Any], reports: Sequence[Report]
) -> tuned.Record | None:
    """Make the trials and print them; None if the user has interrupted them, after printing what is known."""
    is_here = space.hosts[0].name == allocation.LOCAL
    parent = request.scratch or _nearest_folder(Path(str(space.settings["output_dir"])))
    with _scratch_folder(parent) as scratch:
        print(f"trials write to {scratch}, which is removed; {space.settings['output_dir']} is not touched")
        if len(space.hosts) > 1:
            print(per_host(space))
        print(memory_note(space), flush=True)
        trials = search.Search(
            space,
            Program(tuple(program), space.settings, request.shared_flags, request.warm_up, request.steps),
            lambda choice: hosts_flags(space, choice, is_here),
            scratch,
            request.budget_s,
            lambda line: print(line, flush=True),
        )
        try:
            trials.run()
        except KeyboardInterrupt:
            print("interrupted; what is known so far:")
            print(tuned.table(trials.measured, space.batch), flush=True)
            return None
    date = time.strftime("%Y-%m-%d %H:%M")
    return tuned.Record(machine, date, request.budget_s, trials.num_left_out, tuple(trials.measured))


def _nearest_folder(path: Path) -> Path:
    return next(each for each in path.absolute().parents if each.is_dir())


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that all hosts see, and remove it. SIGTERM ends the search as Ctrl-C does. Raises UsageError."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".ringtune-tune-", dir=parent))
    except OSError as error:
        raise UsageError(f"--scratch {parent}", str(error.strerror), legal="a folder that all hosts share") from None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _conclude(record: tuned.Record, space: Space, request: TuneRequest) -> int:
    """Print the table, and write the best choice for ringtune-train."""
    print(tuned.table(record.measured, space.batch))
    if record.left_out:
        print(f"the budget of {record.budget_s:.0f} s left out {record.left_out} choice(s); --budget S gives more")
    if record.best is None:
        print("ringtune-launch: tune: no trial gave a time", file=sys.stderr)
        return EXIT_USAGE if "exit code 2:" in record.measured[0].failure else EXIT_FAILED
    choice = record.best.choice
    is_here = space.hosts[0].name == allocation.LOCAL
    flags = [*hosts_flags(space, choice, is_here), *request.shared_flags, *choice.launch_flags()]
    launch = ["ringtune-launch", "run", *flags]
    host = record.machine["hosts"][0]
    where = f"{len(space.hosts)} host(s) with {host['num_cores']} core(s) of {host['processor']}"
    text = tuned.yaml_text(choice, space, launch, f"{choice}; on {where}, {record.date}")
    try:
        request.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {request.output}", str(error.strerror), legal="a file one may write") from None
    words = shlex.join([PROGRAM, *request.launch.command[1:], "--config", str(request.output)])
    if choice.fp16_allreduce:
        print("fp16 on the wire rounds gradients to three digits; without it: --fp16_allreduce false")
    print(f"best: {choice}\nwritten to {request.output}; start with\n  {shlex.join(launch)} -- {words}")
    return EXIT_FINISHED
