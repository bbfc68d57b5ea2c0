"""What only a GPU can show; skipped by name where there is none. ``benchmarks/gpu.sh`` runs these from the bundle."""

from __future__ import annotations

import json
import re

import pytest
import torch
from conftest import curve, digests, predict, ranks, records, run_command, script

NUM_GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NUM_GPUS == 0, reason="needs an NVIDIA GPU that torch can use"),
]
several = pytest.mark.skipif(NUM_GPUS < 2, reason="needs two GPUs")
EXACT = {"mode": "exact", "num_shards": 4, "save_steps": 6}
SHARED = {**EXACT, "share_gpus": "true"}


def test_a_run_computes_on_the_gpu_and_reports_its_memory(workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run")
    assert done.returncode == 0, done.output
    assert "cuda:0" in done.output and torch.cuda.get_device_name() in done.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    peaks = [each["peak_memory_gib"] for each in lines if each["event"] == "train"]
    assert len(peaks) == 12 and all(0 < each < 10 for each in peaks)


def test_exact_mode_gives_the_same_bits_at_one_rank_and_at_two_that_share_the_gpu(workshop, reference, tmp_path):
    one = reference(1, **EXACT)
    over_mpi = reference(2, **SHARED)
    assert digests(one, 12) == digests(over_mpi, 12) and curve(one) == curve(over_mpi)
    words = ["-m", "ringtune.train.cli", *workshop.arguments(tmp_path / "gloo", **SHARED)]
    done = run_command([script("horovodrun"), "--gloo", "-np", "2", script("python"), *words])
    assert done.returncode == 0, done.output
    assert digests(one, 12) == digests(tmp_path / "gloo", 12)


def test_a_killed_run_goes_on_with_the_same_bits_at_another_number_of_ranks(workshop, reference, tmp_path):
    assert workshop.train(1, tmp_path / "run", kill_at=9, **EXACT).returncode != 0
    done = workshop.train(2, tmp_path / "run", **SHARED)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 12) == digests(reference(1, **EXACT), 12)


def test_more_ranks_than_gpus_are_refused(workshop, tmp_path):
    done = workshop.train(NUM_GPUS + 1, tmp_path / "run")
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    assert "no GPU of its own" in done.output or "have GPU" in done.output


def test_an_overflow_of_fp16_leaves_out_one_update(workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run", fault=("overflow", "3", "0"), fp16="true", max_steps=6)
    assert done.returncode == 0, done.output
    assert [each["updated"] for each in records(tmp_path / "run", "train")] == [True, True, False, True, True, True]


PRECISIONS = {"fp32": {}, "bf16": {"bf16": "true"}, "fp16": {"fp16": "true"}, "exact": EXACT}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_host_waits_for_the_gpu_once_a_step(workshop, tmp_path, precision):
    done = workshop.train(1, tmp_path / "run", fault=("syncs",), **PRECISIONS[precision])
    assert done.returncode == 0, done.output
    counts = [int(each) for each in re.findall(r"step \d+: (\d+) synchronisations", done.output)]
    assert len(counts) == 12 and set(counts[1:]) == {1}, counts  # the first step also sets up the libraries


def test_memory_that_runs_out_is_named(workshop, tmp_path):
    done = workshop.train(1, tmp_path / "run", fault=("little",))
    assert done.returncode == 2 and "Traceback" not in done.output, done.output
    assert "does not fit on cuda:0" in done.output and "lower --per_device_train_batch_size" in done.output


def test_a_gpu_gives_the_curve_of_the_cpu(workshop, tmp_path):
    for name, use_cpu in (("cpu", "true"), ("gpu", "false")):
        assert workshop.train(1, tmp_path / name, dropout=0.0, use_cpu=use_cpu).returncode == 0
    assert curve(tmp_path / "gpu") == pytest.approx(curve(tmp_path / "cpu"), rel=1e-3)


def test_prediction_on_a_gpu_gives_the_classes_of_the_cpu(workshop, reference, tmp_path):
    model, found = reference(1, **EXACT), {}
    for name, use_cpu in (("cpu", "true"), ("gpu", "false")):
        done = predict(1, model, workshop.dev, tmp_path / f"{name}.csv", use_cpu=use_cpu)
        assert done.returncode == 0 and ("cuda:0" in done.output) == (name == "gpu"), done.output
        found[name] = (tmp_path / f"{name}.csv").read_text().splitlines()
    assert len(found["gpu"]) == len(found["cpu"]) > 20
    for on_cpu, on_gpu in zip(found["cpu"], found["gpu"], strict=True):
        (label, *probabilities), (same, *others) = on_cpu.split(","), on_gpu.split(",")
        assert label == same
        if label != "label":
            assert [float(each) for each in others[:2]] == pytest.approx(
                [float(each) for each in probabilities[:2]], abs=1e-4
            )


def test_gpus_that_are_hidden_are_reported(workshop, tmp_path):
    words = ["-m", "ringtune.train.cli", *workshop.arguments(tmp_path / "run", max_steps=1)]
    done = ranks(1, *words, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0 and "CUDA_VISIBLE_DEVICES='' hides the GPUs: computing on the CPU" in done.output


@pytest.mark.parametrize(
    ("num_ranks", "state", "fact"),
    [
        (NUM_GPUS, "ok", f"for {NUM_GPUS} rank(s)"),
        (NUM_GPUS + 1, "BAD", f"for {NUM_GPUS + 1} rank(s)"),
        pytest.param(1, "BAD", f"{NUM_GPUS - 1} would be idle", marks=several),
    ],
)
def test_doctor_wants_a_rank_for_each_gpu(tmp_path, num_ranks, state, fact):
    words = ["doctor", "-H", f"localhost:{num_ranks}", "--quick", "--json", "--folder", tmp_path]
    done = run_command([script("ringtune-launch"), *map(str, words)])
    found = [each for each in json.loads(done.output[done.output.index("{") :])["findings"] if "GPUs" in each["check"]]
    assert [each["state"] for each in found] == [state] and fact in found[0]["fact"], found
    assert torch.cuda.get_device_name() in found[0]["fact"]


@several
def test_nccl_sums_integers_exactly_and_gives_the_bits_of_one_rank(reference):
    assert digests(reference(1, **EXACT), 12) == digests(reference(2, **EXACT), 12)


@several
@pytest.mark.parametrize("wire", ["none", "fp16"])
def test_fast_mode_over_nccl_has_the_curve_of_one_rank(reference, wire):
    settings = {"num_shards": 6, "dropout": 0.0, "compression": wire}
    one, two = reference(1, **{**settings, "compression": "none"}), reference(2, **settings)
    assert curve(two) == pytest.approx(curve(one), rel=2e-2 if wire == "fp16" else 1e-4)


@several
def test_a_sum_that_the_gpu_waits_for_by_an_event_is_never_read_early(workshop, reference, tmp_path):
    """A race between NCCL's stream and the optimizer would show in one of ten runs."""
    expected = digests(reference(1, **EXACT), 12)
    for number in range(10):
        assert workshop.train(2, tmp_path / str(number), **EXACT).returncode == 0
        assert digests(tmp_path / str(number), 12) == expected
