"""The proof that an installed Horovod works: two ranks by each controller, and NCCL where there is a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from ringtune.launch.commands import scripts_folder, search_path
from ringtune.launch.target import Target

LIMIT_S = 120
CONTROLLERS = ("mpi", "gloo")
#: Run by each rank: the sum of all is what it should be, on the CPU.
CPU_CODE = (
    "import torch, horovod.torch as hvd; hvd.init(); n = hvd.size();"
    "total = hvd.allreduce(torch.full((3,), float(hvd.rank() + 1)), op=hvd.Sum, name='verify');"
    "assert n == 2 and total.tolist() == [3.0] * 3, (n, total)"
)
#: Run by each rank with a GPU of its own: the same by NCCL.
NCCL_CODE = (
    "import torch, horovod.torch as hvd; hvd.init(); assert hvd.nccl_built(), 'NCCL is not built in';"
    "torch.cuda.set_device(hvd.local_rank()); n = hvd.size(); mine = torch.full((3,), float(hvd.rank() + 1));"
    "total = hvd.allreduce(mine.cuda(), op=hvd.Sum, name='verify');"
    "assert total.is_cuda and total.tolist() == [n * (n + 1) / 2] * 3, (n, total)"
)
NCCL_VERSION_CODE = "import horovod.torch as hvd; print(hvd.nccl_built()); assert hvd.nccl_built()"
NUM_GPUS_CODE = "import torch; print(torch.cuda.device_count())"


def verify(target: Target) -> bool:
    """Run the installed Horovod as a user would, and print what was proved and what was not; return whether it works.

    Without a driver NCCL cannot run: that is reported, and is no failure, because login nodes are such.
    """
    for controller in CONTROLLERS:
        if not _runs(controller, 2, CPU_CODE, f"two ranks over {controller}"):
            return False
        print(f"verified: 2 ranks, allreduce over {controller}")
    return _verify_nccl(target) if target.cuda else True


def _verify_nccl(target: Target) -> bool:
    if _run([sys.executable, "-P", "-c", NCCL_VERSION_CODE], "NCCL's version") is None:
        return False
    answer = _run([sys.executable, "-P", "-c", NUM_GPUS_CODE], "torch's GPUs")
    num_gpus = int(answer.split()[-1]) if answer else 0
    if not num_gpus:
        print(f"not verified: NCCL {target.nccl} is built in, and not proved: no GPU here that torch can use")
        return True
    num_proc = min(2, num_gpus)
    if not _runs("mpi", num_proc, NCCL_CODE, f"{num_proc} rank(s) over NCCL"):
        return False
    print(f"verified: {num_proc} rank(s), allreduce of GPU tensors over NCCL {target.nccl}")
    return True


def _runs(controller: str, num_proc: int, code: str, what: str) -> bool:
    horovodrun = str(scripts_folder() / "horovodrun")
    return (
        _run([horovodrun, f"--{controller}", "-np", str(num_proc), sys.executable, "-P", "-c", code], what) is not None
    )


def _run(command: list[str], what: str) -> str | None:
    """Return what the command prints; where it fails or takes too long, print that and return None."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, env=rank_environment(os.environ), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=LIMIT_S)
        except BaseException as error:  # too late, or interrupted
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        output.seek(0)
        text = output.read()
    if code == 0:
        return text
    why = f"exit code {code}" if code > 0 else f"no answer in {LIMIT_S} s"
    print(f"{text}\nringtune-launch: horovod: {what} failed: {why}", file=sys.stderr)
    return None


def rank_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which ranks can start on one machine, also as root and on one core. **Pure.**

    Without these variables Open MPI 5 and its launcher PRRTE refuse both (their manuals).
    """
    return {
        **base,
        "PATH": search_path(base),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
