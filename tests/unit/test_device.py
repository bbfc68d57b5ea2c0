"""Which device a rank takes, what is reported when there is none, and what it says when memory runs out."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from ringtune.train import device
from ringtune.train.contract import OutOfMemory, UsageError
from ringtune.train.place import Place, faults, remarks_on


class Ranks:
    """Stands in for the ranks of a job, as far as the choice of a device knows them."""

    def __init__(self, local_rank: int = 0, size: int = 2, *, has_nccl: bool = True) -> None:
        self.local_rank, self.size, self.has_nccl = local_rank, size, has_nccl


@pytest.mark.parametrize(
    ("local_rank", "num_visible", "number"),
    [
        (0, 4, 0),
        (3, 4, 3),  # all GPUs of the host are visible to each rank
        (0, 1, 0),
        (5, 1, 0),  # each rank sees its own as number 0: --gpus-per-task, Flux, LSF, Kubernetes, a wrapper
        (2, 2, None),  # more ranks than GPUs
        (4, 3, None),
    ],
)
def test_a_rank_takes_the_gpu_of_its_local_rank_or_the_only_one_it_sees(local_rank, num_visible, number):
    assert device.gpu_number(local_rank, num_visible) == number


def test_ranks_that_share_gpus_take_them_in_turn():
    assert [device.gpu_number(rank, 2, share=True) for rank in range(4)] == [0, 1, 0, 1]
    assert [device.gpu_number(rank, 1, share=True) for rank in range(2)] == [0, 0]


@pytest.fixture
def gpus(monkeypatch):
    """Let torch see GPUs that are not there: what is tested is which one is chosen."""

    def show(num_visible: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_visible > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_visible)

    return show


def choose(comm: Ranks, *, use_cpu: bool = False) -> tuple[torch.device, list[str]]:
    remarks: list[str] = []
    return device.choose_device(comm, use_cpu=use_cpu, share_gpus=False, report=remarks.append), remarks


def test_more_ranks_than_gpus_are_refused(gpus):
    gpus(2)
    assert choose(Ranks(1))[0] == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="local rank 2 has no GPU of its own, only 2 are visible"):
        choose(Ranks(2, size=3))


def test_the_cpu_is_used_where_it_is_asked_for(gpus):
    gpus(2)
    assert choose(Ranks(1), use_cpu=True) == (torch.device("cpu"), [])


def test_a_horovod_without_nccl_is_refused_for_several_ranks_on_gpus():
    device.require_nccl(Ranks(size=1, has_nccl=False))
    device.require_nccl(Ranks(size=2))
    with pytest.raises(UsageError, match="built without NCCL.*ringtune-launch horovod builds one; or --use_cpu true"):
        device.require_nccl(Ranks(size=2, has_nccl=False))


@pytest.fixture
def host(monkeypatch, tmp_path, gpus):
    """Return a function that makes this host one with or without a driver and a torch that knows CUDA."""
    gpus(0)

    def be(*, driver: bool, cuda: str | None, words: str = "") -> None:
        if driver:
            (tmp_path / "nvidiactl").touch()
        monkeypatch.setattr(device, "DRIVER", tmp_path / "nvidiactl")
        monkeypatch.setattr(torch.version, "cuda", cuda)

        def init() -> None:
            if words:
                raise RuntimeError(words)

        monkeypatch.setattr(torch.cuda, "init", init)

    return be


def test_a_cpu_build_of_torch_on_a_host_without_gpu_needs_no_words(host):
    host(driver=False, cuda=None)
    assert device.reason_without_gpu({}) == ""


@pytest.mark.parametrize(
    ("driver", "cuda", "environ", "words"),
    [
        (True, None, {}, "this host has an NVIDIA GPU, but torch .* is built without CUDA"),
        (False, "13.0", {}, "torch .* knows CUDA, but this host has no GPU"),
        (True, "13.0", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides the GPUs"),
        (True, "13.0", {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides the GPUs"),
    ],
)
def test_computing_on_the_cpu_is_reported_with_its_reason(host, monkeypatch, driver, cuda, environ, words):
    host(driver=driver, cuda=cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found, remarks = choose(Ranks())
    assert found == torch.device("cpu")
    assert len(remarks) == 1 and re.fullmatch(f"{words}: computing on the CPU", remarks[0])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("The NVIDIA driver on your system is too old (found version 12020).\nMore.", "is too old"),
        ("", "no GPU is visible to this process"),  # a job that asked for none
    ],
)
def test_a_gpu_that_torch_cannot_use_is_refused_with_what_to_do(host, words, shown):
    host(driver=True, cuda="13.0", words=words)
    with pytest.raises(UsageError, match=f"NVIDIA driver, but torch .* can use no GPU: .*{shown}.*--use_cpu true"):
        device.reason_without_gpu({})


def test_two_slices_of_one_gpu_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda each: type("Properties", (), {"uuid": "GPU-7"}))
    cuda = torch.device("cuda", 0)
    names = [device.device_id(cuda, {"CUDA_VISIBLE_DEVICES": each}) for each in ("MIG-a", "MIG-b", "0,1", "")]
    assert names == ["MIG-a", "MIG-b", "GPU-7", "GPU-7"]
    assert device.device_id(torch.device("cpu"), {"CUDA_VISIBLE_DEVICES": "MIG-a"}) == ""


# Places


def on_gpus(*ids: str, num_gpus: int, name: str = "H100") -> list[Place]:
    return [
        Place(rank, "x", rank, len(ids), f"cuda:{rank}", each, name, num_gpus, "", 1, 1, "torch 2", 0)
        for rank, each in enumerate(ids)
    ]


def test_two_ranks_on_one_gpu_are_refused_unless_asked_for():
    places = on_gpus("GPU-1", "GPU-1", num_gpus=1)
    assert faults(places, None) == ["2 ranks of host x have GPU GPU-1"]
    assert faults(places, None, share_gpus=True) == []


def test_a_rank_that_computes_on_another_kind_of_device_is_named_with_its_reason():
    first, second = on_gpus("GPU-1", "GPU-2", num_gpus=2)
    second = dataclasses.replace(second, device="cpu", device_id="", num_gpus=0, remark="CUDA_VISIBLE_DEVICES='' hides")
    found = ["rank 1 (host x) computes on cpu, rank 0 on cuda:0: CUDA_VISIBLE_DEVICES='' hides"]
    assert faults([first, second], None) == found


def test_gpus_that_nobody_uses_and_gpus_that_differ_are_reported():
    places = on_gpus("GPU-1", "GPU-2", num_gpus=4)
    assert remarks_on(places) == ["host x: 4 GPUs are visible, 2 used; one rank for each uses all"]
    assert remarks_on(on_gpus("GPU-1", "GPU-2", num_gpus=1)) == []  # each rank sees its own
    mixed = [*on_gpus("GPU-1", num_gpus=1), dataclasses.replace(places[1], num_gpus=1, device_name="A100")]
    assert remarks_on(mixed)[0].startswith("the GPUs differ (A100, H100)")


def test_the_reason_for_computing_on_the_cpu_is_reported_once_for_each_host():
    one = dataclasses.replace(on_gpus("", num_gpus=0)[0], device="cpu", remark="no GPU: computing on the CPU")
    assert remarks_on([one, dataclasses.replace(one, rank=1)]) == ["host x: no GPU: computing on the CPU"]
    assert remarks_on([dataclasses.replace(one, remark="")]) == []


# Kernels


@pytest.mark.parametrize(("asked", "precision"), [(False, "highest"), (True, "high")])
def test_fp32_is_multiplied_as_tf32_only_where_that_is_asked_for(monkeypatch, asked, precision):
    found = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", found.append)
    device.choose_kernels(torch.device("cpu"), exact=False, tf32=asked)
    assert found == []
    device.choose_kernels(torch.device("cuda", 0), exact=False, tf32=asked)
    assert found == [precision]


def test_attention_on_a_gpu_makes_no_plan_for_each_shape_of_a_batch(monkeypatch):
    found = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", found.append)
    device.choose_kernels(torch.device("cpu"), exact=False, tf32=False)
    assert found == []
    device.choose_kernels(torch.device("cuda", 0), exact=False, tf32=False)
    assert found == [False]


# Memory


def from_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")


def from_host() -> None:
    torch.empty(1 << 60)


def from_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("fails", [from_gpu, from_host, from_python])
def test_memory_that_runs_out_is_named_with_what_to_lower(fails):
    expected = r"memory: step 3 does not fit on cpu \(peak so far .* GiB\): [^\n]*; lower this$"
    with (
        pytest.raises(OutOfMemory, match=expected),
        device.name_out_of_memory(lambda: "step 3", torch.device("cpu"), "lower this"),
    ):
        fails()


def test_other_errors_of_torch_stay_themselves():
    with pytest.raises(RuntimeError, match="shape"), device.name_out_of_memory(lambda: "x", torch.device("cpu"), ""):
        torch.zeros(2).reshape(3)
