"""Flags that several commands of ringtune-launch have, and the kinds of value they take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ringtune.launch import allocation, cuda, environment
from ringtune.launch.plan import Ssh


def seconds(text: str) -> float:
    """Return a time above 0. Raises ValueError, from which argparse makes its message."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def count(text: str) -> int:
    """Return a whole number from 1. Raises ValueError, from which argparse makes its message."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def capabilities(text: str) -> tuple[int, ...]:
    """Return compute capabilities. Raises ValueError, from which argparse makes its message."""
    found = cuda.capabilities(text)
    if not found:
        raise ValueError
    return found


def port(text: str) -> int:
    """Return a TCP port. Raises ValueError, from which argparse makes its message."""
    value = int(text)
    if not 1 <= value <= 65535:
        raise ValueError
    return value


# argparse puts the functions' names into its messages: "argument --jobs: invalid count (from 1) value: '0'".
seconds.__name__, count.__name__, port.__name__ = "time in seconds (above 0)", "count (from 1)", "port (1 to 65535)"


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which hosts, and how to reach them."""
    parser.add_argument("-H", "--hosts", help="a:2,b:2 or n[01-03]:4")
    parser.add_argument("--hostfile", type=Path, help="one 'host slots=N' a line")
    parser.add_argument(
        "--ranks-per-node",
        type=count,
        metavar="N",
        help="in place of what the hostfile or the batch system says of each host",
    )
    parser.add_argument("--launcher", choices=("auto", "horovodrun", "mpirun", "srun"), default="auto")
    parser.add_argument("--network-interface", metavar="NAME", help="default: by the routes between the hosts")
    parser.add_argument("-p", "--ssh-port", type=port, metavar="PORT")
    parser.add_argument("-i", "--ssh-identity-file", metavar="FILE")
    parser.add_argument("--ssh-config", metavar="FILE")


def add_srun_options(run: argparse.ArgumentParser) -> None:
    """Add what is srun's alone."""
    run.add_argument(
        "--srun-mpi", metavar="PLUGIN", help="MPI plugin of srun (default: none, with --controller mpi pmix)"
    )
    run.add_argument(
        "--srun-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="one more option of srun, such as --srun-option=--container-image=FILE",
    )


def add_timeouts(run: argparse.ArgumentParser) -> None:
    """Add how long to wait for ranks."""
    run.add_argument(
        "--start-timeout", type=seconds, default=120.0, metavar="S", help="seconds for all ranks to start (120)"
    )
    run.add_argument(
        "--stop-timeout",
        type=seconds,
        default=90.0,
        metavar="S",
        help="seconds for the ranks to end after SIGTERM or Ctrl-C (90)",
    )


def add_horovod_settings(run: argparse.ArgumentParser) -> None:
    """Add Horovod's settings, as horovodrun spells them."""
    horovod = run.add_argument_group("Horovod", "as horovodrun spells them")
    for each in environment.HOROVOD_SETTINGS:
        if each.kind is bool:
            horovod.add_argument(f"--{each.flag}", action="store_true", help=each.help)
        else:
            horovod.add_argument(
                f"--{each.flag}",
                type=each.kind,
                metavar="N" if each.kind is not str else "VALUE",
                choices=each.choices,
                help=each.help,
            )


def ssh(options: argparse.Namespace) -> Ssh:
    """Return how to reach the other hosts."""
    return Ssh(options.ssh_port, options.ssh_identity_file, options.ssh_config)


def names_hosts(options: argparse.Namespace) -> bool:
    """Return whether the user or a batch system names hosts."""
    return bool(options.hosts or options.hostfile or allocation.is_of_a_batch_system(os.environ))


def shared(options: argparse.Namespace) -> list[str]:
    """Return the flags of ringtune-launch run that say how to reach hosts, as they were given. **Pure.**"""
    given = {
        "--launcher": options.launcher if options.launcher != "auto" else None,
        "--controller": options.controller,
        "--network-interface": options.network_interface,
        "--ssh-port": options.ssh_port,
        "--ssh-identity-file": options.ssh_identity_file,
        "--ssh-config": options.ssh_config,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    words += [word for each in options.carried for word in ("-x", each)]
    return [*words, *(f"--carry={each}" for each in options.carry)]
