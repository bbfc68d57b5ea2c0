"""The format that a model computes in, and whether a device computes in it or only imitates it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import torch
from ringtune.train.comm import Comm

CPU_INFO = Path("/proc/cpuinfo")
#: What Linux calls instructions for bf16 (arch/x86/include/asm/cpufeatures.h, Documentation/arch/arm64/elf_hwcaps.rst).
BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16", "svebf16"))
FIRST_BF16 = 8  # major compute capability (CUDA C++ Programming Guide, arithmetic instructions)


class Formats(Protocol):
    """Settings of either command."""

    @property
    def bf16(self) -> bool | None:
        """Whether bf16 is asked for."""
        ...

    @property
    def fp16(self) -> bool | None:
        """Whether fp16 is asked for."""
        ...


def autocast_format(settings: Formats) -> torch.dtype | None:
    """Return the format that settings ask for; None for fp32. **Pure.**"""
    return torch.bfloat16 if settings.bf16 else torch.float16 if settings.fp16 else None


def report_slow_format(
    asked: torch.dtype | None, device: torch.device, comm: Comm, report: Callable[[str], None]
) -> None:
    """Report the hosts on which a format costs time instead of saving it, a line each. **Collective.**"""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        remark = remark_on_gpu(asked, properties.name, (properties.major, properties.minor))
    else:
        remark = remark_on_cpu(asked, cpu_flags(CPU_INFO.read_text() if CPU_INFO.exists() else ""))
    for host, words in dict.fromkeys(comm.gather_values((socket.gethostname(), remark), "precision/remarks")):
        if words:
            report(f"host {host}: {words}")


def cpu_flags(cpu_info: str) -> frozenset[str]:
    """Return the instructions of the first processor in ``/proc/cpuinfo``, by Linux's names. **Pure.**"""
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # of x86, of Arm
            return frozenset(value.split())
    return frozenset()


def remark_on_cpu(asked: torch.dtype | None, flags: Collection[str]) -> str:
    """Return what to know of a format on a processor, "" if nothing. flags: its instructions. **Pure.**

    On a processor with instructions for fp16 (AVX512-FP16) torch 2.13 multiplies matrices in fp16 as fast as in fp32.
    """
    if asked is torch.bfloat16 and not BF16_FLAGS & set(flags):
        return "bf16 is emulated on this processor and slower than fp32 (--bf16 false)"
    if asked is torch.float16:
        faster = "; --bf16 true is" if BF16_FLAGS & set(flags) else ""
        return f"fp16 is not faster than fp32 on a processor{faster} (--fp16 false)"
    return ""


def remark_on_gpu(asked: torch.dtype | None, name: str, capability: tuple[int, int]) -> str:
    """Return what to know of a format on a GPU, "" if nothing. capability: (major, minor). **Pure.**"""
    if asked is torch.bfloat16 and capability[0] < FIRST_BF16:
        version = ".".join(map(str, capability))
        return f"bf16 is emulated on {name} (compute capability {version}) and slower than fp32; --fp16 true is faster"
    return ""
