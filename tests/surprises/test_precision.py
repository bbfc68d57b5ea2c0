"""A format that a device only imitates costs time instead of saving it: that is reported, for each host."""

from __future__ import annotations

import pytest
import torch
from conftest import predict
from ringtune.train import precision
from ringtune.train.config import TrainConfig
from ringtune.train.precision import autocast_format, cpu_flags, remark_on_cpu, remark_on_gpu, report_slow_format

BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("asked", "flags", "words"),
    [
        (BF16, "fpu avx2 avx512f", "bf16 is emulated on this processor and slower than fp32"),
        (BF16, "", "bf16 is emulated"),
        (BF16, "fpu avx512_bf16", ""),
        (BF16, "fpu amx_bf16 amx_tile", ""),
        (BF16, "asimd bf16", ""),
        (FP16, "fpu avx2", "fp16 is not faster than fp32 on a processor (--fp16 false)"),
        (FP16, "fpu avx512_fp16 amx_bf16", "fp16 is not faster than fp32 on a processor; --bf16 true is"),
        (None, "fpu", ""),
    ],
)
def test_what_a_processor_only_imitates_is_known(asked, flags, words):
    found = remark_on_cpu(asked, flags.split())
    assert found.startswith(words) and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("asked", "capability", "is_slow"),
    [(BF16, (7, 5), True), (BF16, (6, 0), True), (BF16, (8, 0), False), (FP16, (7, 0), False), (None, (7, 5), False)],
)
def test_what_a_gpu_only_imitates_is_known(asked, capability, is_slow):
    found = remark_on_gpu(asked, "NVIDIA T4", capability)
    assert bool(found) == is_slow
    assert not found or "emulated on NVIDIA T4 (compute capability" in found


def test_instructions_are_read_as_linux_names_them():
    x86 = (
        "processor\t: 0\nmodel name\t: flags\nflags\t\t: fpu amx_bf16 sse\nbugs\t: x\n\nprocessor\t: 1\nflags\t: none\n"
    )
    assert cpu_flags(x86) == {"fpu", "amx_bf16", "sse"}
    assert cpu_flags("processor\t: 0\nFeatures\t: fp asimd svebf16\n") == {"fp", "asimd", "svebf16"}
    assert cpu_flags("") == frozenset()


class Ranks:
    """Two ranks of one host and one of another."""

    def gather_values(self, value, name):
        host, remark = value
        return [(host, remark), (host, remark), ("other", "")]


def test_each_host_is_named_once(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx2\n")
    monkeypatch.setattr(precision, "CPU_INFO", info)
    monkeypatch.setattr(precision.socket, "gethostname", lambda: "here")
    reports: list[str] = []
    asked = autocast_format(TrainConfig("m", bf16=True))
    report_slow_format(asked, torch.device("cpu"), Ranks(), reports.append)
    assert reports == ["host here: bf16 is emulated on this processor and slower than fp32 (--bf16 false)"]


def test_both_commands_report_it(workshop, tmp_path):
    done = workshop.train(0, tmp_path / "run", fp16="true", max_steps=1, do_eval="false", log_row_ids=None)
    assert done.returncode == 0 and "fp16 is not faster than fp32 on a processor" in done.output, done.output
    (tmp_path / "rows.txt").write_text("good\n")
    done = predict(0, tmp_path / "run", tmp_path / "rows.txt", tmp_path / "out.csv")
    assert done.returncode == 0 and "fp16 is not faster than fp32 on a processor" in done.output, done.output
