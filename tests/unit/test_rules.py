"""The rules: pure functions, tested without MPI."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ringtune.train import batching, chunks, config, fixedpoint, scores
from ringtune.train.contract import UsageError
from ringtune.train.evaluate import plan_batches
from ringtune.train.order import DataOrder, derive_seed
from ringtune.train.place import threads_of_rank
from ringtune.train.shards import deal, padded_tokens, shards_of_rank
from ringtune.train.task.classification import Classification

lengths_of_rows = st.lists(st.integers(1, 128), min_size=1, max_size=64).map(np.array)


@given(lengths_of_rows, st.integers(1, 12))
def test_dealing_gives_every_row_to_one_shard(lengths, num_shards):
    rows = np.arange(len(lengths)) * 7
    shards = deal(rows, lengths, num_shards)
    assert len(shards) == num_shards
    assert sorted(np.concatenate(shards)) == sorted(rows)
    assert sum(len(each) > 0 for each in shards) == min(num_shards, len(rows))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9).map(np.array), st.integers(1, 5))
def test_the_largest_shard_is_as_cheap_as_in_the_best_of_all_splits_of_the_sorted_rows(lengths, num_shards):
    largest = max(padded_tokens(lengths[each]) for each in deal(np.arange(len(lengths)), lengths, num_shards))
    by_length = np.sort(lengths)[::-1]
    splits = itertools.combinations(range(1, len(lengths)), min(num_shards, len(lengths)) - 1)
    assert largest == min(max(map(padded_tokens, np.split(by_length, starts))) for starts in splits)


def test_ranks_hold_contiguous_blocks_that_cover_all_shards():
    assert [list(shards_of_rank(6, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 50))
def test_an_epoch_visits_every_row_once(seed, num_rows, batch):
    order = DataOrder(seed, num_rows, batch)
    rows = np.concatenate([order.rows(step) for step in range(order.steps_per_epoch, 2 * order.steps_per_epoch)])
    assert sorted(rows) == list(range(num_rows))


def test_epochs_and_seeds_differ_in_order():
    first = DataOrder(1, 100, 100)
    assert not np.array_equal(first.rows(0), first.rows(1))
    assert not np.array_equal(first.rows(0), DataOrder(2, 100, 100).rows(0))


def test_seeds_depend_on_every_part_and_its_place():
    assert len({derive_seed("a", 1, 2), derive_seed("a", 2, 1), derive_seed("b", 1, 2), derive_seed("a", 12)}) == 4


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=16), st.integers(0, 1000))
def test_fixed_point_sums_do_not_depend_on_order_and_are_near_the_true_sum(values, seed):
    largest = max(map(abs, values))
    unit = fixedpoint.units(torch.tensor(largest, dtype=torch.float64), len(values))
    shuffled = random.Random(seed).sample(values, len(values))
    sums = [
        fixedpoint.dequantise(
            sum(fixedpoint.quantise(torch.tensor([value]), unit) for value in order), unit, torch.float64
        ).item()
        for order in (values, shuffled)
    ]
    assert sums[0] == sums[1]
    assert sums[0] == pytest.approx(math.fsum(values), abs=largest * 1e-15 * len(values) + 1e-300)


@pytest.mark.parametrize("num_terms", [1, 3])
def test_a_sum_is_made_in_parts_of_which_none_is_left_out(num_terms, monkeypatch):
    monkeypatch.setattr(fixedpoint, "PART", 7)
    terms = [torch.randn(5, 9, generator=torch.Generator().manual_seed(number)) for number in range(num_terms)]
    unit = fixedpoint.units(torch.tensor(8.0, dtype=torch.float64), num_terms)
    total = fixedpoint.quantised_sum(terms, unit)
    assert torch.equal(total, sum(fixedpoint.quantise(each, unit) for each in terms))
    assert torch.equal(fixedpoint.dequantise(total, unit, torch.float64), total.double() * unit)


def test_the_largest_sum_stays_within_int64():
    value = torch.full((1,), 3.4e38)
    unit = fixedpoint.units(torch.tensor(3.4e38, dtype=torch.float64), 8)
    total = sum(fixedpoint.quantise(value, unit) for _ in range(8))
    assert fixedpoint.dequantise(total, unit, torch.float64).item() == pytest.approx(
        8 * value.double().item(), rel=1e-12
    )


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1.0, 3.4e38])
def test_a_unit_is_a_power_of_two_and_numbers_of_every_size_come_back(value):
    exact = torch.tensor([value])
    unit = fixedpoint.units(exact.double().max(), 1)
    assert math.frexp(unit.item())[0] == 0.5
    assert torch.equal(fixedpoint.dequantise(fixedpoint.quantise(exact, unit), unit, torch.float32), exact)


def test_given_batch_sizes_must_multiply_out():
    assert batching.resolve(2, "fast", 32, 8, 2, None) == batching.Batching(32, 4)
    assert batching.resolve(2, "fast", 32, 8, None, None) == batching.Batching(32, 4)
    assert batching.resolve(2, "fast", None, 8, None, None) == batching.Batching(16, 2)
    assert batching.resolve(3, "exact", None, None, None, None) == batching.Batching(32, 24)
    with pytest.raises(UsageError, match="30 is not per_device.*8 .*2 x world size 2.*nearest legal.*32"):
        batching.resolve(2, "fast", 30, 8, 2, None)
    with pytest.raises(UsageError, match="nearest legal --global_batch_size: 16 or 32"):
        batching.resolve(2, "fast", 30, 8, None, None)
    with pytest.raises(UsageError, match="8 shards cannot be dealt evenly to 3 ranks.*6 or 9"):
        batching.resolve(3, "exact", None, None, None, 8)


def test_evaluation_batches_hold_every_row_once_like_lengths_together():
    lengths = np.array([4, 9, 1, 8, 5])
    assert [each.tolist() for each in plan_batches(lengths, 18)] == [[1, 3], [4, 0], [2]]


@given(st.lists(st.integers(0, 40), max_size=1200).map(np.array), st.integers(1, 4000))
def test_evaluation_batches_stay_in_their_chunk_and_in_their_bounds(lengths, batch_tokens):
    batches = plan_batches(lengths, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len({row // chunks.SMALL for row in batch}) == 1
        assert len(batch) == 1 or padded_tokens(lengths[batch]) <= batch_tokens
        assert 4 * max(lengths[batch]) <= 5 * min(lengths[batch])
        assert list(lengths[batch]) == sorted(lengths[batch], reverse=True)
    first = [batch.tolist() for batch in plan_batches(lengths[: chunks.SMALL], batch_tokens)]
    assert [batch.tolist() for batch in batches[: len(first)]] == first  # later rows do not show in earlier batches


def test_chunks_of_a_long_input_are_larger_at_its_end_and_dealt_from_there():
    assert [rows.stop - rows.start for rows in chunks.slices(10_000)] == [512] * 16 + [1024, 784]
    assert [rows.start for rows in chunks.slices(10_000)] == [chunks.first_row(number) for number in range(18)]
    assert chunks.slices(0) == [] and chunks.slices(513) == [slice(0, 512), slice(512, 513)]
    assert chunks.largest_first([0, 3, 15, 16, 18]) == [16, 18, 0, 3, 15]


def test_scores_are_those_of_textbooks():
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]], dtype=np.float32)
    found = Classification(None, ("a", "b")).scores([(logits, np.array([0, 1, 0, 0]))]).values
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx((3 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 4)
    line = scores.regression_scores(np.array([[1.0], [2.0], [4.0]]), np.array([2.0, 4.0, 8.0]))
    assert (line["pearson"], line["spearmanr"]) == (pytest.approx(1), pytest.approx(1))


ENOUGH = ["--model_name_or_path", "m", "--train_file", "x.csv"]


def test_fp16_allreduce_is_another_name_of_fp16_compression(tmp_path):
    half = config.parse([*ENOUGH, "--fp16_allreduce"])[0]
    assert half == config.parse([*ENOUGH, "--compression", "fp16"])[0]
    assert (half.compression, half.fp16_allreduce) == ("fp16", True)
    (tmp_path / "half.yaml").write_text(config.to_yaml(half))
    again = ["--config", str(tmp_path / "half.yaml")]
    assert config.parse(again)[0] == half
    assert config.parse([*again, "--compression", "acp"])[0].fp16_allreduce is False  # a flag wins over a file
    (tmp_path / "plain.yaml").write_text(config.to_yaml(config.parse(ENOUGH)[0]))
    assert config.parse(["--config", str(tmp_path / "plain.yaml"), "--fp16_allreduce"])[0] == half


def test_a_run_glue_command_line_is_understood():
    words = [
        *ENOUGH,
        "--do_train",
        "--do_eval",
        "--fp16",
        "--per-device-train-batch-size",
        "8",
        "--overwrite_output_dir",
        "--learning_rate=2e-5",
        "--num_train_epochs",
        "3",
        "--max_seq_length",
        "128",
    ]
    found, _ = config.parse(words)
    assert (found.fp16, found.per_device_train_batch_size, found.overwrite_output_dir) == (True, 8, True)


def test_flags_win_over_the_config_file_and_what_is_written_reads_back(tmp_path):
    found, _ = config.parse([*ENOUGH, "--seed", "7"])
    (tmp_path / "c.yaml").write_text(config.to_yaml(found))
    assert config.parse(["--config", str(tmp_path / "c.yaml")])[0] == found
    assert config.parse(["--config", str(tmp_path / "c.yaml"), "--seed", "8"])[0].seed == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learing_rate", "1"], "no such flag; nearest is learning_rate"),
        (["--seed", "x"], "seed"),
        (["--mode", "slow"], "mode"),
        (["--warmup_ratio", "1.5"], "--warmup_ratio: 1.5 is out of range"),
        (["--bf16", "--fp16"], "both are set"),
        (["--mode", "exact", "--fp16_allreduce"], "--fp16_allreduce: exact mode sums integers"),
        (["--mode", "exact", "--compression", "acp"], "the errors of low rank are kept by rank"),
        (["--compression", "acp", "--fp16"], "the errors kept would be lost; fp32, or --bf16"),
        (["--compression", "acp", "--compression_rank", "0"], "0 is too few"),
        (["--compression", "acp", "--fp16_allreduce"], "--fp16_allreduce true and --compression acp disagree"),
        (["--compression", "none", "--fp16_allreduce"], "--fp16_allreduce true and --compression none disagree"),
        (["--compression", "fp16", "--fp16_allreduce", "false"], "--fp16_allreduce false and --compression fp16 disag"),
        (["--config", "none.yaml"], "none.yaml: No such file"),
    ],
)
def test_wrong_settings_are_named_in_one_line(words, message):
    with pytest.raises(UsageError) as caught:
        config.parse([*ENOUGH, *words])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_the_file_names_the_nearest(tmp_path):
    (tmp_path / "c.yaml").write_text("learningrate: 1\n")
    with pytest.raises(UsageError, match="learningrate: unknown key; nearest is learning_rate"):
        config.parse(["--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- seed\n", "it holds no settings"),
        ("", "it holds no settings"),
        ("seed: null\n", "--seed: it is null; a value of type int"),
        ("learning_rate: .nan\n", "--learning_rate: nan is not finite"),
        ("num_train_epochs: .inf\n", "--num_train_epochs: inf is not finite"),
        ('output_dir: "a\\0b"\n', r"--output_dir: 'a\x00b' holds a NUL character"),
        ("seed: 1\nmode: fast\nseed: 2\n", "seed: it is there twice; each key once"),
        ("seed: [1]\n", "seed"),
        ("bf16: maybe\n", "bf16"),
        ("output_dir: 2020-13-45\n", "month must be in 1..12"),
        (f"seed: {'[' * 2000}{']' * 2000}\n", "recursion"),
        ("seed: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (f"seed: {1 << 63}\n", "--seed: 9223372036854775808 is too large"),
        ("num_threads: 100000\n", "--num_threads: 100000 is too large; at most 1024"),
        ("max_steps: 0\nnum_train_epochs: 0\n", "trains nothing"),
    ],
)
def test_a_config_file_of_wrong_values_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        config.parse(["--config", str(tmp_path / "c.yaml"), *ENOUGH])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resumed_run_may_change_its_cadence_but_not_its_mathematics():
    found, _ = config.parse(ENOUGH)
    saved = {name: getattr(found, name) for name in config.FIELDS}
    config.refuse_changes({**saved, "save_steps": 5, "num_train_epochs": 1.0}, found)
    with pytest.raises(UsageError, match="--learning_rate: 5e-05 is not what the run to be resumed has, 0.1") as caught:
        config.refuse_changes({**saved, "learning_rate": 0.1}, found)
    assert len(str(caught.value)) < 500


def test_ranks_share_the_cores_unless_told_otherwise():
    assert threads_of_rank(3, {"OMP_NUM_THREADS": "2"}, 8, 8, 4) == 3
    assert threads_of_rank(None, {"OMP_NUM_THREADS": "2"}, 8, 8, 4) == 2
    assert threads_of_rank(None, {}, 8, 8, 4) == 2
    assert threads_of_rank(None, {}, 2, 8, 4) == 2  # bound to two cores by the launcher
    assert threads_of_rank(None, {}, 2, 2, 4) == 1


def places(*placements, **changes):
    from ringtune.train.place import Place

    return [
        Place(rank, host, local, size, "cpu", "", "", 0, "", 1, 1, "torch 2", 0)
        for rank, (host, local, size) in enumerate(placements)
    ]


def test_ranks_that_are_not_where_they_were_promised_are_named():
    import dataclasses

    from ringtune.train.place import faults

    good = places(("x", 0, 2), ("x", 1, 2), ("y", 0, 1))
    assert faults(good, None) == faults(good, "a:2,b:1") == faults(good, "[fe80::1]:2,b:1") == []
    assert faults(good, "a:1,b:1,c:1") and faults(good, "a:3") and faults(good, "a:1,b:2")
    assert faults(good, "a:2") == ["2 ranks were promised, there are 3"]
    pmix = places(("x", 0, 1), ("x", 0, 1))  # what srun and a PMIx that do not fit give
    assert faults(pmix, None) == ["2 ranks of host x have local rank 0"]
    gpus = [dataclasses.replace(each, device_id="GPU-1") for each in good]
    assert "2 ranks of host x have GPU GPU-1" in faults(gpus, None)
    mixed = [good[0], good[1], dataclasses.replace(good[2], versions="torch 1")]
    assert faults(mixed, None) == ["rank 2 (host y) runs torch 1, rank 0 torch 2"]
