"""Word embeddings whose gradient travels by rows give the bits of dense ones, on any number of ranks, also killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import digests, ranks

pytestmark = pytest.mark.parallel
FACTS = str(Path(__file__).parent / "embedding_facts.py")


@pytest.mark.parametrize("sizes", [(1, 2), pytest.param((1, 2, 4), marks=pytest.mark.long)], ids=str)
def test_by_rows_or_dense_at_any_number_of_ranks_the_bits_are_the_same(sizes):
    found = set()
    for size in sizes:
        done = ranks(size, FACTS, limit_s=200)
        assert done.output.count("all facts hold") == size, done.output
        found |= {line.rpartition(" ")[2] for line in done.output.splitlines() if line.startswith("exact, rank")}
    assert len(found) == 1


def test_a_rank_killed_between_the_numbers_of_its_rows_and_the_rows_costs_no_bit(workshop, reference, tmp_path):
    settings = {"mode": "exact", "max_steps": 20}
    done = workshop.train(2, tmp_path / "run", fault=("cut", "7", "1"), save_steps=2, **settings)
    assert done.returncode != 0, done.output
    assert sorted(each.name for each in (tmp_path / "run").glob("checkpoint-*"))[-1] == "checkpoint-6"
    done = workshop.train(2, tmp_path / "run", **settings)
    assert done.returncode == 0 and "going on from" in done.output, done.output
    assert digests(tmp_path / "run", 20) == digests(reference(1, **settings), 20)
