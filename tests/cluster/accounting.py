"""SLURM's accounting on a test host: a MariaDB that only this host reaches, and slurmdbd in front of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster.hosts import Cluster, Done

NEEDED = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server-core", "mariadb": "mariadb-client-core"}
DATABASE = "slurm_acct_db"
SOCKET = "/run/mysqld/mysqld.sock"  # where MariaDB's library looks for a server of its own machine
STARTING_LIMIT_S = 60
#: Of slurm.conf. A job that has ended is forgotten by slurmctld soon: what is known of it then comes from sacct.
SLURM_CONF = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
MinJobAge=2
"""
_CONF = """
AuthType=auth/munge
DbdHost={host}
LogFile={state}/slurmdbd.log
PidFile=/run/slurmdbd.pid
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc={database}
StorageUser=root
"""
_DATABASE = """
mkdir -p /run/mysqld
mariadb-install-db --no-defaults --user=root --datadir=/run/mysqld/data --auth-root-authentication-method=normal \
    --skip-test-db
setsid mariadbd --no-defaults --user=root --datadir=/run/mysqld/data --socket={socket} --skip-networking \
    --innodb-buffer-pool-size=32M --innodb-log-file-size=8M > {state}/mariadb.log 2>&1 < /dev/null &
"""


class Accounting:
    """The accounting of a SLURM whose files are in ``state``, on a host of a cluster."""

    def __init__(self, cluster: Cluster, host: str, state: Path, must: Callable[[str, str], None]) -> None:
        self.cluster, self.host, self.state, self.must = cluster, host, state, must

    def start(self) -> None:
        """Make an empty database, start both servers and enter the cluster, which slurmctld then reports to."""
        path = self.state / "slurmdbd.conf"
        path.write_text(_CONF.format(host=self.host, state=self.state, database=DATABASE))
        path.chmod(0o600)  # slurmdbd reads no other
        self.must(self.host, _DATABASE.format(socket=SOCKET, state=self.state))
        self.must(self.host, _until("mariadb -e 'select 1'"))
        self.start_slurmdbd()
        self.must(self.host, _until("sacctmgr -i add cluster test"))

    def start_slurmdbd(self) -> None:
        """Start slurmdbd."""
        self.must(self.host, "slurmdbd")

    def sql(self, command: str) -> Done:
        """Run a command on the database."""
        return self.cluster.run(self.host, ["mariadb", "--batch", "-N", DATABASE, "-e", command])


def _until(command: str) -> str:
    return f"for i in $(seq {STARTING_LIMIT_S * 5}); do {command} && exit 0; sleep 0.2; done; exit 1"
