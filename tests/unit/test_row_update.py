"""AdamW of the rows that were ever reached has the bits of AdamW of the whole matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from ringtune.train import row_update
from ringtune.train.row_update import RowUpdate
from torch import nn
from torch.optim.adamw import adamw as real_adamw

NUM_ROWS, WIDTH = 640, 24
DECAYS = [0.0, 0.1]


class Matrix:
    """A matrix and another parameter under AdamW, of which each step fills some rows."""

    def __init__(self, decay: float) -> None:
        torch.manual_seed(0)
        self.words, self.bias = nn.Parameter(torch.randn(NUM_ROWS, WIDTH)), nn.Parameter(torch.randn(WIDTH))
        self.words.data[:3] = torch.tensor([0.0, -0.0, 1e-42])[:, None]  # signs of zero, and a subnormal number
        groups = [{"params": [self.words], "weight_decay": decay}, {"params": [self.bias], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        self.update = RowUpdate(self.optimizer, self.words)

    def step(self, number: int, *, by_rows: bool) -> None:
        """Take a step whose gradient fills five rows, of the first 5 + 2 x number."""
        draw = torch.Generator().manual_seed(number)
        filled = torch.randperm(min(NUM_ROWS, 5 + 2 * number), generator=draw)[:5].sort().values
        self.words.grad = torch.zeros(NUM_ROWS, WIDTH)
        self.words.grad[filled] = torch.randn(5, WIDTH, generator=draw) * 10.0 ** -(number % 9)
        self.bias.grad = torch.randn(WIDTH, generator=draw)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 / (1 + number)
        with self.update.after_a_step(filled if by_rows else None):
            self.optimizer.step()

    def bits(self) -> list[torch.Tensor]:
        """Return all that training changes."""
        states = [self.optimizer.state[each] for each in (self.words, self.bias)]
        values = [self.words, self.bias, *(state[name] for state in states for name in ("exp_avg", "exp_avg_sq"))]
        return [each.detach().contiguous().view(torch.int32) for each in values] + [state["step"] for state in states]


def same(one: Matrix, other: Matrix) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.bits(), other.bits(), strict=True))


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Return the sizes of the parts that are updated by rows."""
    sizes: list[int] = []

    def adamw(weights, *arguments, **settings):
        sizes.append(len(weights[0]))
        real_adamw(weights, *arguments, **settings)

    monkeypatch.setattr(row_update, "adamw", adamw)
    return sizes


@pytest.mark.parametrize("decay", DECAYS)
def test_sixty_steps_by_rows_have_the_bits_of_those_of_the_whole_matrix(decay, calls, monkeypatch):
    monkeypatch.setattr(row_update, "PART", 7 * WIDTH)  # several parts, the last one smaller
    one, other = Matrix(decay), Matrix(decay)
    for number in range(60):
        one.step(number, by_rows=False)
        other.step(number, by_rows=True)
        assert same(one, other), number
    assert set(calls) == set(range(1, 8))
    # Up to an eighth of 640 rows: beyond, all are updated together.
    assert 60 < int(other.update.reached.sum()) < 125


def test_many_reached_rows_are_updated_as_they_lie(calls, monkeypatch):
    monkeypatch.setattr(row_update, "LARGEST_SHARE", 6 / NUM_ROWS)
    one, other = Matrix(0.1), Matrix(0.1)
    for number in range(8):
        one.step(number, by_rows=False)
        other.step(number, by_rows=True)
    assert same(one, other)
    assert not calls[3:]


@pytest.mark.parametrize("decay", DECAYS)
def test_a_run_that_goes_on_knows_its_rows_by_their_moments(decay, calls):
    one, other = Matrix(decay), Matrix(decay)
    for number in range(20):
        one.step(number, by_rows=False)
        other.step(number, by_rows=True)
    resumed = Matrix(decay)
    resumed.words.data.copy_(other.words.data)
    resumed.bias.data.copy_(other.bias.data)
    resumed.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
    assert resumed.update.reached is None
    calls.clear()
    for number in range(20, 30):
        one.step(number, by_rows=False)
        resumed.step(number, by_rows=True)
    assert same(one, resumed)
    assert calls


def test_a_step_with_all_rows_in_between_is_not_forgotten(calls):
    """As after an overflow of a scaled loss, when nothing is known of the gradient's rows."""
    one, other = Matrix(0.0), Matrix(0.0)
    for number in range(12):
        one.step(number, by_rows=False)
        other.step(number, by_rows=number != 6)
    assert same(one, other)
    assert calls


def test_another_optimizer_updates_all_itself(calls):
    weight = nn.Parameter(torch.ones(NUM_ROWS, 2))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    update = RowUpdate(optimizer, weight)
    for _ in range(3):
        weight.grad = torch.zeros(NUM_ROWS, 2)
        weight.grad[1] = 1.0
        with update.after_a_step(torch.tensor([1])):
            optimizer.step()
    assert weight[1, 0] < -4 and (weight[2:] == 1).all()
    assert not calls
