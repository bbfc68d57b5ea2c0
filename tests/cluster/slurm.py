"""A real SLURM on test hosts: munged on each, slurmctld on the first, a slurmd on all others; ``login`` runs commands.

Everything SLURM writes lies in the hosts' own memory or in the shared folder; nothing of the system's configuration is
read or changed. Needs Debian's slurmctld, slurmd, slurm-client and munge beside what hosts need.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import accounting
from cluster.accounting import Accounting
from cluster.hosts import Cluster, Done, missing

NEEDED = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "munged": "munge",
}
STARTING_LIMIT_S = 30
LOGIN = "login"

_CONF = """
ClusterName=test
SlurmctldHost={login}
AuthType=auth/munge
AuthInfo=cred_expire=5
GresTypes=gpu
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
SelectType=select/cons_tres
MaxArraySize=20001
MaxJobCount=40000
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={state}
SlurmdSpoolDir=/run/slurmd-%n
SlurmdPidFile=/run/slurmd-%n.pid
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd-%n.log
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0,max_switch_wait=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MpiDefault=none
{accounting}
{node_lines}
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes={nodes} MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=10
"""


def missing_packages(*, accounted: bool = False) -> list[str]:
    """Return the Debian packages that are needed and absent; accounted: with the accounting."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    needed = NEEDED | (accounting.NEEDED if accounted else {})
    return sorted({*missing(), *(package for name, package in needed.items() if not shutil.which(name, path=path))})


class Slurm:
    """A cluster with SLURM; use it as a context manager. Nodes are named as given."""

    def __init__(
        self,
        *nodes: str,
        shared: Path,
        hosts: Mapping[str, str] | None = None,
        task_plugin: str = "task/none",
        num_cpus: int = 2,
        accounted: bool = False,
    ) -> None:
        self.nodes, self.shared = nodes, shared
        self.hosts = {node: (hosts or {}).get(node, node) for node in nodes}  # node → host, where the names differ
        self.state = shared / "slurm"
        self.state.mkdir()
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr={host} CPUs={num_cpus} RealMemory=8000 Gres=gpu:2"
            for node, host in self.hosts.items()
        ]
        conf = _CONF.format(
            login=LOGIN,
            nodes=",".join(nodes),
            state=self.state,
            node_lines="\n".join(lines),
            task_plugin=task_plugin,
            accounting=accounting.SLURM_CONF.format(host=LOGIN) if accounted else "MinJobAge=600",
        )
        (self.state / "slurm.conf").write_text(conf)
        # Nothing here uses control groups, but slurmd does not start without knowing which kind it would use.
        # GPUs that SLURM counts and nobody has: jobs that ask for some are placed, and compute on the CPU.
        (self.state / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (self.state / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.cluster = Cluster(LOGIN, *self.hosts.values(), shared=shared)
        self.accounting = Accounting(self.cluster, LOGIN, self.state, self._must) if accounted else None

    def __enter__(self) -> Slurm:
        self.cluster.__enter__()
        try:
            for host in (LOGIN, *self.hosts.values()):
                self._must(
                    host,
                    "cp /etc/munge/munge.key /run/munge.key && mkdir -p -m 755 /run/munge && chown root /run/munge.key"
                    " && munged --force --key-file=/run/munge.key --pid-file=/run/munge/munged.pid"
                    " --log-file=/run/munge/munged.log --seed-file=/run/munge/seed",
                )
            if self.accounting is not None:
                self.accounting.start()
            self.start_slurmctld()
            for node in self.nodes:
                self.start_slurmd(node)
            self._wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.cluster.__exit__(*exc)

    def start_slurmctld(self) -> None:
        """Start the controller."""
        self._must(LOGIN, "slurmctld")

    def start_slurmd(self, node: str) -> None:
        """Start a node's daemon."""
        self._must(self.hosts[node], f"mkdir -p /run/slurmd-{node} && slurmd -N {node}")

    def run(self, command: Sequence[str], *, limit_s: float = 120, env: Mapping[str, str] | None = None) -> Done:
        """Run a command on the login host."""
        return self.cluster.run(LOGIN, command, limit_s=limit_s, env=self.environment(env))

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a user of this SLURM."""
        return {**(os.environ if env is None else env), "SLURM_CONF": str(self.state / "slurm.conf")}

    def _must(self, host: str, script: str) -> None:
        done = self.cluster.run(host, ["sh", "-c", script], env=self.environment())
        assert done.returncode == 0, f"{host}: {script}: {done.output}\n{self.logs()}"

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        return "\n".join(f"{each.name}:\n{each.read_text()[-2000:]}" for each in self.state.glob("*.log"))

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + STARTING_LIMIT_S
        while self.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%T"]).output.split() != ["idle"] * len(self.nodes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"SLURM does not come up: {self.run(['sinfo', '-N', '-l']).output}\n{self.logs()}")
            time.sleep(0.1)
