"""A packed row gives what the row alone gives, of any family that is packed; rows are dealt and grouped cheaply."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from reads import Reads
from ringtune.train.attention import PACKED_TYPES, can_pack, packer_of, take_packed_rows
from ringtune.train.batches import on_device
from ringtune.train.first_token import leave_out_other_tokens
from ringtune.train.packing import current, group_rows, packing_of
from ringtune.train.shards import deal_packed
from test_first_token import classifier

LENGTHS = np.array([12, 12, 9, 5, 2, 2])
CPU = torch.device("cpu")


def rows_of(lengths: np.ndarray) -> dict[str, torch.Tensor]:
    """Return a padded batch with a padding token in the text of its first row."""
    torch.manual_seed(4)
    mask = torch.arange(int(lengths.max())) < torch.from_numpy(lengths)[:, None]
    ids = torch.randint(2, 50, mask.shape)
    ids[0, 3] = 1  # RoBERTa's padding token
    return {"input_ids": ids.masked_fill(~mask, 1), "attention_mask": mask.long()}


def sensitive(family: str, **more: object) -> torch.nn.Module:
    """Return a classifier, float64, whose logits depend visibly on every token and every position."""
    model = classifier(family, initializer_range=0.4, attention_probs_dropout_prob=0.0, **more)
    if family == "modernbert":
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    return model.double()


def packed(family: str, **more: object) -> torch.nn.Module:
    model = leave_out_other_tokens(sensitive(family, **more))
    assert can_pack(model)
    take_packed_rows(model)
    return model


def outcome(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the logits of all rows and the gradients of the sum of their squares."""
    model.zero_grad()
    found = torch.cat([model(**batch).logits for batch in batches])
    found.square().sum().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": found.detach(), **gradients}


def alone(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return each row as a batch of its own, without padding."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    return [{name: each[row : row + 1, :length] for name, each in batch.items()} for row, length in enumerate(lengths)]


@pytest.mark.parametrize("family", PACKED_TYPES)
def test_a_packed_row_gives_what_the_row_alone_gives(family):
    """Logits and the gradients of all parameters; ModernBERT's rows are longer than what its tokens see."""
    more = {"pad_token_id": 1} | ({"local_attention": 6} if family == "modernbert" else {})
    batch = rows_of(LENGTHS)
    expected = outcome(sensitive(family, **more), alone(batch))
    assert expected["logits"].std(dim=0).min() > 1e-3  # rows differ, so that a mixture would be seen
    torch.testing.assert_close(outcome(packed(family, **more), [batch]), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", [[0], [0, 0, 0], [5, 0, 4], [4, 3, 2, 1, 0]], ids=str)
def test_rows_of_any_number_and_order_are_packed(rows):
    batch = {name: each[rows] for name, each in rows_of(LENGTHS).items()}
    expected = outcome(sensitive("bert"), alone(batch))
    torch.testing.assert_close(outcome(packed("bert"), [batch]), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("deberta-v2", {}),  # its positions are relative, and no part of the interface
        ("mpnet", {}),
        ("bert", {"chunk_size_feed_forward": 4}),
        ("bert", {"is_decoder": True}),
        ("bert", {"num_hidden_layers": 0}),
        ("modernbert", {"classifier_pooling": "mean"}),
    ],
    ids=str,
)
def test_other_models_stay_padded(family, more):
    model = leave_out_other_tokens(classifier(family, **more))
    assert not can_pack(model) and packer_of(model, CPU, None) is None


def test_threads_that_share_a_model_pack_rows_of_their_own():
    model = packed("bert")
    batches = [rows_of(each) for each in (LENGTHS, LENGTHS[2:], LENGTHS[::-1].copy(), LENGTHS[:1])]

    def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            return model(**batch).logits

    expected = [logits(each) for each in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(logits, batches * 20))
    assert all(torch.equal(one, expected[place % 4]) for place, one in enumerate(found))


def test_a_model_that_fails_leaves_no_packing_behind():
    model = packed("bert")
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[2, 1000]]))
    assert current.get() is None


def test_no_packed_batch_is_read_back_from_its_device():
    model = packed("bert")
    batch = packer_of(model, CPU, None).pack(rows_of(LENGTHS))
    with Reads() as reads:
        model(**batch).logits.sum().backward()
    assert reads.found == []


@pytest.mark.parametrize(
    "lengths", [[7], [9, 9, 9], [60, 8, 7, 3], [100, 99, 50, 49, 10, 9, 8, 2], [200, 3, 200]], ids=str
)
def test_the_groups_of_rows_are_the_cheapest(lengths):
    lengths = np.array(lengths)

    def cost(groups):
        return sum((stop - start) * lengths[start:stop].max() ** 2 + 2500 for start, stop in groups)

    cuts = range(1, len(lengths))
    splits = [
        list(itertools.pairwise([0, *chosen, len(lengths)]))
        for number in range(len(lengths))
        for chosen in itertools.combinations(cuts, number)
    ]
    found = group_rows(lengths, 2500)
    assert found in splits and cost(found) == min(map(cost, splits))


def test_a_packing_names_every_token_once():
    packing = packing_of(LENGTHS, 10)
    assert packing.first.tolist() == [0, 12, 24, 33, 38, 40] and packing.bounds.tolist()[-1] == LENGTHS.sum()
    tokens = [
        token
        for group in packing.groups
        for token in (
            group.start
            + (group.places[group.tokens] if group.tokens is not None else torch.arange(group.stop - group.start))
        ).tolist()
    ]
    assert tokens == list(range(LENGTHS.sum()))


@pytest.mark.parametrize(("num_rows", "num_shards"), [(32, 2), (16 * 8, 8), (16 * 32, 32), (3, 5), (5, 5), (0, 2)])
def test_packed_rows_are_dealt_each_once_and_evenly(num_rows, num_shards):
    draw = np.random.default_rng(5)
    rows = draw.permutation(10 * num_rows + 1)[:num_rows]
    costs = np.clip(draw.lognormal(3.2, 0.6, num_rows), 5, 200).astype(np.int64)
    shards = deal_packed(rows, costs, num_shards)
    assert len(shards) == num_shards and sorted(np.concatenate(shards).tolist()) == sorted(rows.tolist())
    assert sum(len(each) > 0 for each in shards) == min(num_rows, num_shards)
    cost_of = dict(zip(rows.tolist(), costs.tolist(), strict=True))
    totals = [sum(cost_of[row] for row in each.tolist()) for each in shards]
    if num_rows >= 16 * num_shards:
        assert np.mean(totals) / max(totals) > 0.97
    for each in shards:
        assert [cost_of[row] for row in each.tolist()] == sorted((cost_of[row] for row in each.tolist()), reverse=True)


def test_labels_as_wide_as_a_batch_is_long_are_no_tokens():
    """28 labels, and a batch whose longest row has 28 tokens."""
    batch = rows_of(np.array([4, 2, 3])) | {"labels": torch.arange(12.0).reshape(3, 4)}
    packer = packer_of(packed("bert"), torch.device("cpu"), None)
    found = packer.pack(batch, {"labels"})
    assert found["labels"].tolist() == batch["labels"].tolist() and found["input_ids"].shape == (1, 9)
    on_cpu = on_device(batch, packer, torch.device("cpu"), {"labels"})
    assert on_cpu["labels"].shape == (3, 4)
