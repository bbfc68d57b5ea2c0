"""Which device a rank computes on, and what it reports when there is none or its memory runs out."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from ringtune.train.comm import Comm
from ringtune.train.contract import OutOfMemory, UsageError

DRIVER = Path("/dev/nvidiactl")  # there where NVIDIA's driver is loaded
GIB = 1 << 30


def choose_device(comm: Comm, *, use_cpu: bool, share_gpus: bool, report: Callable[[str], None]) -> torch.device:
    """Return this rank's GPU by its local rank, or the CPU where there is none or it is asked for.

    report: takes the reason if the CPU is used although one might expect a GPU. Raises UsageError for a GPU that cannot
    be used, and for more ranks than GPUs.
    """
    if use_cpu:
        return torch.device("cpu")
    num_visible = torch.cuda.device_count()
    if not torch.cuda.is_available():
        reason = reason_without_gpu(os.environ)
        if reason:
            report(f"{reason}: computing on the CPU")
        return torch.device("cpu")
    number = gpu_number(comm.local_rank, num_visible, share=share_gpus)
    if number is None:
        raise UsageError(
            "launch",
            f"local rank {comm.local_rank} has no GPU of its own, only {num_visible} are visible",
            legal="one GPU per rank",
            todo="start fewer ranks per host",
        )
    return torch.device("cuda", number)


def processor_of(device: torch.device) -> str:
    """Return the kind of processor a device is: the name of a GPU, or CPU, of which kinds are not told apart."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def leave_out_cudnn_attention(device: torch.device) -> None:
    """Leave attention on a GPU to the kernels that take rows of any length as they are.

    cuDNN's attention makes a plan for every new shape of a batch. On an H100 with BERT-base and texts of 128 tokens in
    the mean, a step took 528 ms while most shapes were new, of which the GPU computed 66.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def choose_kernels(device: torch.device, *, exact: bool, tf32: bool) -> None:
    """Set what torch computes with: TF32 if asked for; in exact mode no GPU kernel that adds in an order of its own.

    (PyTorch's notes on reproducibility.) New tensors are not filled, which is for finding reads of memory that nothing
    wrote, and would cost a pass over each.
    """
    leave_out_cudnn_attention(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("error")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def require_nccl(comm: Comm) -> None:
    """Raise UsageError for several ranks with a Horovod that cannot sum what lies on GPUs."""
    if comm.size > 1 and not comm.has_nccl:
        raise UsageError(
            "horovod",
            "it was built without NCCL and cannot sum the gradients of GPUs",
            legal="a Horovod for the CUDA of this torch",
            todo="ringtune-launch horovod builds one; or --use_cpu true",
        )


def gpu_number(local_rank: int, num_visible: int, *, share: bool = False) -> int | None:
    """Return the number of the GPU that a rank takes among those it sees; None if there is none for it. **Pure.**

    A rank that sees a single one takes it: SLURM's ``--gpus-per-task``, Flux, LSF, Kubernetes and wrapper scripts show
    each rank its own as number 0. That two do not take the same one is checked by the GPUs' own numbers.
    """
    if share:
        return local_rank % num_visible
    if local_rank < num_visible:
        return local_rank
    return 0 if num_visible == 1 else None


def reason_without_gpu(environ: Mapping[str, str]) -> str:
    """Return why torch can use no GPU here, "" for a CPU build where there is none.

    Raises UsageError where the machine has one that torch should be able to use: a run that computes on the CPU
    instead takes days before somebody looks.
    """
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip() in ("-1", "NoDevFiles")):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPUs"
    if torch.version.cuda is None:
        return f"this host has an NVIDIA GPU, but torch {torch.__version__} is built without CUDA" * DRIVER.exists()
    if not DRIVER.exists():
        return f"torch {torch.__version__} knows CUDA, but this host has no GPU"
    try:
        torch.cuda.init()
        words = "no GPU is visible to this process"
    except (RuntimeError, AssertionError) as error:
        words = str(error).splitlines()[0]
    raise UsageError(
        "GPU",
        f"this host has an NVIDIA driver, but torch {torch.__version__} can use no GPU: {words}",
        legal="a driver for torch's CUDA, and GPUs given to the job",
        todo="ask for GPUs (--gpus-per-node), or --use_cpu true",
    )


def device_id(device: torch.device, environ: Mapping[str, str]) -> str:
    """Return what tells one GPU, or one slice of one (MIG), from all others; "" for the CPU.

    A process can use one slice only, the first that ``CUDA_VISIBLE_DEVICES`` names (NVIDIA's MIG user guide).
    """
    if device.type == "cpu":
        return ""
    first = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(device).uuid)


def peak_memory(device: torch.device) -> int:
    """Return the most memory that this process has held so far, bytes: of its GPU, or of the host on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def name_out_of_memory(where: Callable[[], str], device: torch.device, todo: str) -> Iterator[None]:
    """Raise OutOfMemory with what to lower where torch finds no memory, on a GPU or on the host.

    where: gives what did not fit; asked only then.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        words = str(error).splitlines()[0]
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch has no class of its own for the host's memory
            raise
        words = str(error).splitlines()[0]
    except MemoryError:
        words = "the host has no memory left"
    else:
        return
    peak = f"peak so far {peak_memory(device) / GIB:.2f} GiB"
    raise OutOfMemory(UsageError("memory", f"{where()} does not fit on {device} ({peak}): {words[:300]}", todo=todo))
