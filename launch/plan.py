"""The plan of a launch, decided before anything starts, and the command to start it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ringtune.launch.hosts import Host
from ringtune.launch.ranks import RankSlot, used_hosts


@dataclass(frozen=True)
class Ssh:
    """How to reach the other hosts; empty fields leave it to ssh's own configuration."""

    port: int | None = None
    identity_file: str | None = None
    config_file: str | None = None

    def options(self) -> list[str]:
        """Return these settings as arguments of ssh. **Pure.**"""
        pairs = (("-p", self.port), ("-i", self.identity_file), ("-F", self.config_file))
        return [word for flag, value in pairs if value is not None for word in (flag, str(value))]


@dataclass(frozen=True)
class Timeouts:
    """How long to wait, in seconds."""

    start_s: float = 120.0  # from the launcher's start until every rank's supervisor has connected
    stop_s: float = 90.0  # from a request to stop until the ranks are terminated


@dataclass(frozen=True)
class LaunchPlan:
    """Everything the launchers need to start the ranks."""

    slots: tuple[RankSlot, ...]
    source: str  # where the hosts come from
    launcher: str  # horovodrun, mpirun or srun
    controller: str  # mpi or gloo: by which Horovod's ranks find each other and communicate
    command: tuple[str, ...]  # what the launcher starts for each rank: a supervisor that runs the user's program
    environment: Mapping[str, str]  # carried to every rank, on any host
    is_local: bool  # all ranks on this machine
    here: Mapping[str, str] = field(default_factory=dict)  # what ranks on this machine get besides
    cpus_per_rank: int | None = None  # that SLURM has given the job's tasks, if it was asked for them
    overcommits: bool = False  # the job may have fewer CPUs than ranks
    in_slurm: bool = False  # the hosts are those of the SLURM allocation this runs in
    ssh: Ssh = Ssh()
    interface: str | None = None  # network interface or CIDR network, None: by the routes between the hosts
    mpi_prefix: str = ""  # where Open MPI is installed, on every host
    ring_rules: str = ""  # Open MPI's file of algorithms by message size
    srun_mpi: str = "none"  # plugin that starts MPI under srun
    srun_options: tuple[str, ...] = ()  # more arguments of srun
    step_gres: str = ""  # what a step asks SLURM for: GPUs of a node that the job has and did not ask for
    as_root: bool = False

    @property
    def carries_all(self) -> bool:
        """Whether SLURM starts the processes on every node, with the whole environment of the launcher."""
        return self.in_slurm and self.launcher in ("srun", "mpirun")

    @property
    def step_environment(self) -> dict[str, str]:
        """What srun reads, also where mpirun calls it."""
        return {"SLURM_GRES": self.step_gres} if self.step_gres else {}

    @property
    def uses_mpi(self) -> bool:
        """Whether ranks are started by mpirun, or meet by MPI."""
        return self.launcher == "mpirun" or self.controller == "mpi"

    @property
    def num_proc(self) -> int:
        """Ranks."""
        return len(self.slots)

    @property
    def hosts(self) -> list[Host]:
        """Hosts that have ranks, with as many slots as ranks."""
        return used_hosts(self.slots)

    @property
    def host_list(self) -> str:
        """The hosts in the form ``a:2,b:1``."""
        return ",".join(map(str, self.hosts))


@dataclass(frozen=True)
class Command:
    """The launcher's command line."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # variables beside the plan's
