"""The formulas of ``benchmarks/scaling_model.py`` at their limits."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "scaling_model.py"
SPEC = importlib.util.spec_from_file_location("scaling_model", PATH)
model = importlib.util.module_from_spec(SPEC)
sys.modules["scaling_model"] = model  # dataclasses look their module up
SPEC.loader.exec_module(model)

RANKS = (1, 2, 3, 4, 8, 64, 1024, 4096)
LINK = model.Link(alpha_s=20e-6, bytes_per_s=1.25e9, start_s=1e-3)
MB = 1_000_000


def test_one_rank_sends_nothing_in_any_way():
    assert model.ring(1, 100 * MB, LINK) == 0
    assert model.hierarchical(1, 1, 100 * MB, LINK, LINK) == 0


def test_a_ring_without_latency_takes_its_bytes_over_the_bandwidth():
    bare = model.Link(0, 1e9)
    assert model.ring(2, 100 * MB, bare) == pytest.approx(0.1)
    assert model.ring(4, 100 * MB, bare) == pytest.approx(0.15)
    assert model.ring(4096, 100 * MB, bare) == pytest.approx(0.2, rel=1e-3)  # twice S/B, however many ranks


def test_a_ring_of_nothing_but_latency_takes_its_messages():
    assert model.ring(5, 1, model.Link(1e-3, float("inf"))) == pytest.approx(8e-3)


def test_more_ranks_and_more_bytes_never_take_less_time():
    for cost in (
        lambda ranks: model.ring(ranks, 91 * MB, LINK),
        lambda ranks: model.hierarchical(ranks, 8, 91 * MB, LINK, LINK),
    ):
        seconds = [cost(ranks) for ranks in RANKS]
        assert seconds == sorted(seconds)
    sizes = [model.ring(8, size, LINK) for size in (1, MB, 10 * MB)]
    assert sizes == sorted(sizes)


def test_rings_within_hosts_save_messages_between_them_and_one_rank_per_host_is_a_plain_ring():
    fast = model.Link(1e-6, 1e12)
    assert model.hierarchical(64, 8, MB, fast, LINK) < model.ring(512, MB, LINK)
    assert model.hierarchical(64, 1, MB, fast, LINK) == model.ring(64, MB, LINK)


def test_rows_are_sent_once_however_many_ranks_have_filled_them():
    assert model.rows_bytes(30522, 400, 1536) == 2 * 30522 + 400 * 1536


def test_low_rank_sends_half_of_both_factors_and_vectors_whole():
    assert model.low_rank_bytes([(100, 200)], 4) == 4 * 4 * 150
    assert model.low_rank_bytes([(100,)], 4) == 400
    assert model.low_rank_bytes([(2, 2)], 4) == 16  # a factor would be larger than the matrix


def test_backward_hides_what_travels_early_and_nothing_hides_what_is_ready_last():
    compute = model.Compute(1e-3, 2e-3, 0.01)
    alone = model.step_seconds(100, compute, 0, 0)
    assert alone == pytest.approx(0.31)
    assert model.step_seconds(100, compute, 0.2, 0) == alone
    assert model.step_seconds(100, compute, 0.25, 0.1) == pytest.approx(alone + 0.15)


def test_a_fit_finds_the_link_that_times_were_made_with():
    times = [(n, size, model.ring(n, size, LINK)) for n in (2, 3, 4) for size in (4096, MB, 50 * MB)]
    found = model.fit_link(times)
    assert found.alpha_s == pytest.approx(LINK.alpha_s, rel=1e-3)
    assert found.bytes_per_s == pytest.approx(LINK.bytes_per_s, rel=1e-3)
    assert found.start_s == pytest.approx(LINK.start_s, rel=1e-3)


def test_dealing_rows_of_one_length_is_even_and_of_many_lengths_nearly():
    words = [np.array([row % 7, 7]) for row in range(300)]
    packer = model.Packer(hidden_size=384, padding_token=None, takes_types=True)
    even = model.deal_steps(np.full(300, 20), words, packer, 8, 16, 2)
    assert even.balance == 1 and even.most_tokens == even.tokens == 320 and even.rows_of_all == 8
    mixed = model.deal_steps(np.arange(300) % 60 + 4, words, packer, 8, 16, 2)
    assert 0.97 < mixed.balance < 1 and mixed.most_tokens > mixed.tokens


def test_rates_of_links_are_read_as_tc_has_them():
    assert [model.rate_bytes(each) for each in ("8kbit", "100mbit", "1gbit")] == [1e3, 12.5e6, 125e6]
    assert [model.rate_bytes(each) for each in ("fast", "1", "1gbps")] == [None] * 3
