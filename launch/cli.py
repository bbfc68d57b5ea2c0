"""The command ``ringtune-launch``; standard library only, so that it starts fast on a login node."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringtune.launch import environment, flags
from ringtune.launch.parser import Parser
from ringtune.train.contract import EXIT_FINISHED, EXIT_USAGE, UsageError, output_may_be_closed

HOST = re.compile(r"[^/:=]+:[0-9]+")  # with slots, in a place where a program is expected

if TYPE_CHECKING:
    from ringtune.launch.run import LaunchRequest


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ringtune-launch`` and exit with its code."""
    try:
        with output_may_be_closed():
            options = _parser().parse_args(argv)
            sys.exit(options.run(options))
    except UsageError as error:
        print(f"ringtune-launch: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> Parser:
    parser = Parser(
        prog="ringtune-launch",
        description="Start the ranks of any Horovod, MPI or torch program on any hosts; build the Horovod they need.",
        epilog="tab completion: ringtune-launch completion bash|zsh|tcsh",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    horovod = commands.add_parser(
        "horovod",
        help="build, install and verify Horovod for the torch and MPI of this environment",
        description="Build Horovod 0.28.1, with a short list of named corrections, for the torch, MPI and CUDA of this "
        "environment, keep the wheel in a cache, install it, and verify it by an allreduce of two ranks over MPI, over "
        "Gloo and, where there is a GPU, over NCCL. With a CUDA build of torch and nvcc it is built for GPUs, also "
        "where there is none.",
        epilog="exit codes: 0 Horovod works, 2 something is missing (it is named), 1 the build or verification failed",
    )
    horovod.add_argument("--cpu", action="store_true", help="build for CPUs only, even if torch knows CUDA")
    horovod.add_argument(
        "--cuda-arch",
        type=flags.capabilities,
        default=(),
        metavar="80,90",
        help="compute capabilities to build for (default: those of the GPUs present, else all that torch has)",
    )
    horovod.add_argument("--dry-run", action="store_true", help="show what would be done and do nothing")
    horovod.add_argument("--force", action="store_true", help="build even if the cache has the wheel")
    horovod.add_argument("--cache-dir", type=Path, help="default: $RINGTUNE_CACHE or ~/.cache/ringtune")
    horovod.add_argument("--jobs", type=flags.count, help="compilers at once (default: one per core)")
    horovod.add_argument("--no-verify", action="store_true", help="leave out the verification")
    horovod.set_defaults(run=_horovod)
    _add_run(commands)
    _add_doctor(commands)
    _add_tune(commands)
    completion = commands.add_parser(
        "completion",
        help="print tab completion",
        description="Print tab completion; for bash: source <(ringtune-launch completion bash)",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(run=lambda options: _complete(parser, options.shell))
    return parser


def _complete(parser: argparse.ArgumentParser, shell: str) -> int:
    import shtab

    print(shtab.complete(parser, shell))
    return EXIT_FINISHED


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check hosts and the links between them",
        description="Check every host for what would hurt a run: reachability, software, clock, GPUs, disk, shared "
        "folders, and the latency and ring-allreduce bandwidth of the links between them.",
        epilog="exit codes: 0 nothing found, 1 something would hurt a run (reported with what to do), 2 wrong usage",
    )
    flags.add_hosts(doctor)
    doctor.add_argument(
        "--folder", type=Path, action="append", help="where runs are written (default: here); must be shared"
    )
    doctor.add_argument("--quick", action="store_true", help="messages up to 1 MiB only")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from ringtune.launch import doctor

    request = _request(options, command=(), num_proc=None if flags.names_hosts(options) else 1)
    return doctor.examine(request, options.folder or [Path.cwd()], as_json=options.json, quick=options.quick)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="start a program on ranks",
        usage="%(prog)s [-np N] [-H a:2,b:2 | --hostfile FILE] [options] -- COMMAND",
        description="Start COMMAND on every rank, supervise all of them, and end with the code of the first that "
        "failed. Hosts come from -H, --hostfile, the SLURM job this runs in, or this machine, in that order. The "
        "program gets its rank from Horovod, from MPI, or in RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and "
        "MASTER_PORT.",
        epilog="exit codes: 0 all ranks ended well, 75 stopped on request with a checkpoint, 2 wrong usage or a host "
        "that cannot take ranks (it is named), otherwise that of the first failing rank (128 + N if killed by signal "
        "N)",
        behind="flags of the program come after --",
    )
    run.add_argument("-np", "--num-proc", type=int, metavar="N", help="ranks (default: all slots of the hosts)")
    flags.add_hosts(run)
    run.add_argument("--controller", choices=("mpi", "gloo"), help="default: mpi, under srun gloo")
    run.add_argument("--dry-run", action="store_true", help="show rank table, environment and command; start nothing")
    run.add_argument("--output-dir", type=Path, metavar="DIR", help="keep the output of each rank in a file of its own")
    run.add_argument(
        "-x",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        dest="carried",
        help="carry one more environment variable to other hosts; on this machine all are carried",
    )
    run.add_argument("--carry", action="append", default=[], metavar="PATTERN", help="carry all that match: 'WANDB_*'")
    run.add_argument("--no-bind", action="store_true", help="do not bind ranks to cores")
    run.add_argument("--no-ring", action="store_true", help="leave the choice of MPI's allreduce to Open MPI")
    flags.add_srun_options(run)
    flags.add_timeouts(run)
    run.add_argument("--no-check", action="store_true", help="do not check the hosts first")
    run.add_argument("-v", "--verbose", action="store_true", help="show the command line")
    flags.add_horovod_settings(run)
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ringtune.launch import run
    from ringtune.launch.plan import Timeouts

    return run.run(
        _request(
            options,
            command=_command(options),
            num_proc=options.num_proc,
            controller=options.controller,
            srun_mpi=options.srun_mpi,
            srun_options=tuple(options.srun_option),
            carried=tuple(options.carried),
            patterns=tuple(options.carry),
            settings=environment.horovod_settings(vars(options)),
            bound=not options.no_bind,
            ring=not options.no_ring,
            output_dir=options.output_dir,
            timeouts=Timeouts(options.start_timeout, options.stop_timeout),
            checked=not options.no_check,
            dry_run=options.dry_run,
            verbose=options.verbose,
        )
    )


def _add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune",
        help="measure how a run of ringtune-train is computed fastest",
        usage="%(prog)s [-np N] [-H a:2,b:2 | --hostfile FILE] [options] -- ringtune-train FLAGS",
        description="Measure, in real launches of a few steps with the run's own model and rows, ranks x threads per "
        "host, shards per rank, fp16 on the wire, and Horovod's fusion threshold and cycle time; write the best as "
        "YAML for ringtune-train --config, with how to launch it, and keep it for this kind of machine. Each step has "
        "the same rows in all of them; what FLAGS fix is left as it is.",
        epilog="exit codes: 0 found, 1 no trial gave a time, 2 wrong usage, 130 interrupted",
        behind="flags of ringtune-train come after --",
    )
    tune.add_argument("-np", "--num-proc", type=flags.count, metavar="N", help="ranks (default: it is tuned)")
    flags.add_hosts(tune)
    tune.add_argument("--controller", choices=("mpi", "gloo"), help="as of ringtune-launch run")
    tune.add_argument("-x", action="append", default=[], metavar="NAME[=VALUE]", dest="carried", help="likewise")
    tune.add_argument("--carry", action="append", default=[], metavar="PATTERN", help="likewise")
    tune.add_argument("--budget", type=flags.seconds, default=300.0, metavar="S", help="seconds for all trials (300)")
    tune.add_argument("--steps", type=flags.count, default=12, metavar="N", help="steps measured in a trial (12)")
    tune.add_argument("--warm-up", type=flags.count, default=4, metavar="N", help="steps before them (4)")
    tune.add_argument("--output", type=Path, default=Path("tuned.yaml"), metavar="FILE", help="default: tuned.yaml")
    tune.add_argument("--scratch", type=Path, metavar="DIR", help="shared by all hosts; default: beside output_dir")
    tune.add_argument("--cache-dir", type=Path, metavar="DIR", help="default: $RINGTUNE_CACHE or ~/.cache/ringtune")
    tune.add_argument("--again", action="store_true", help="measure even if the result is known")
    tune.add_argument("--dry-run", action="store_true", help="list the trials; start nothing")
    tune.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    tune.set_defaults(run=_tune)


def _tune(options: argparse.Namespace) -> int:
    from ringtune.launch import tune

    request = _request(
        options,
        command=_command(options),
        num_proc=options.num_proc,
        controller=options.controller,
        carried=tuple(options.carried),
        patterns=tuple(options.carry),
    )
    return tune.tune(
        tune.TuneRequest(
            launch=request,
            shared_flags=tuple(flags.shared(options)),
            budget_s=options.budget,
            steps=options.steps,
            warm_up=options.warm_up,
            output=options.output,
            scratch=options.scratch,
            cache=options.cache_dir,
            again=options.again,
            dry_run=options.dry_run,
        )
    )


def _request(options: argparse.Namespace, **others: Any) -> LaunchRequest:
    """Return the request of a command that takes the flags of hosts. others: its further fields."""
    from ringtune.launch.run import LaunchRequest

    return LaunchRequest(
        hosts=options.hosts,
        hostfile=options.hostfile,
        ranks_per_node=options.ranks_per_node,
        launcher=options.launcher,
        ssh=flags.ssh(options),
        interface=options.network_interface,
        **others,
    )


def _command(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the words behind ``--``, or all without it. Hosts before it, as in ``-H a:2 b:2 --``, join those of -H.

    Raises UsageError for a word that may be a host or the program.
    """
    words: list[str] = options.command
    cut = words.index("--") if "--" in words else 0
    if words and words[0] != "--" and options.hosts and HOST.fullmatch(words[0]):
        if not all(map(HOST.fullmatch, words[:cut])) or cut == 0:
            raise UsageError(
                "-H",
                f"{words[0]!r} is another host, or the program",
                legal="-H a:2,b:2 -- COMMAND",
                todo="put a comma between hosts, and -- before the program",
            )
        options.hosts = ",".join([options.hosts, *words[:cut]])
    elif words[:1] != ["--"]:
        return tuple(words)
    return tuple(words[cut + 1 :])


def _horovod(options: argparse.Namespace) -> int:
    from ringtune.launch import horovod

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the exception also ends the compilers
    if options.cpu and options.cuda_arch:
        raise UsageError("--cuda-arch", "there is nothing to build for GPUs with --cpu", todo="leave one of them out")
    return horovod.provide(
        horovod.Request(
            cache_dir=options.cache_dir,
            dry_run=options.dry_run,
            force=options.force,
            jobs=options.jobs,
            verify=not options.no_verify,
            cpu_only=options.cpu,
            capabilities=options.cuda_arch,
        )
    )


if __name__ == "__main__":
    main()
