"""Sum the gradient of the word embeddings by rows: a step fills few of them, those of the tokens in its batch.

PyTorch gives this gradient as a dense matrix, MiniLM's as 47 MB of fresh zeros for every shard. Here it is a sparse
tensor per shard (``nn.Embedding(sparse=True)``), added into one buffer that lives as long as the run and that is
cleared and sent row by row. For clipping and AdamW it is dense: ``.grad`` is that buffer.

Over the ranks travel a count per row and, in fp32 however others travel, the rows that any rank has filled, both by
allreduce. At any number of ranks that is never more than the dense sum and the counts, 2 bytes a row. (Gathering each
rank's own rows, as Horovod does for sparse tensors, sends a frequent token once per rank: with many ranks more than the
dense sum.)

AdamW leaves out rows that never had a gradient (`ringtune.train.row_update`), and no others: a row that had one moves
as long as its first moment is not zero. Done later with the same bits, each of these updates has to follow from the one
before: the arithmetic is the same, in more and smaller pieces, and all of it is due before a checkpoint or an
evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ringtune.train import fixedpoint
from ringtune.train.comm import Comm
from ringtune.train.gradient import Reducer, largest_magnitude
from torch import nn

#: Numbers of the smallest matrix whose gradient travels by rows: zeroing and summing less, 8 MB in `exact`, takes no
#: longer than what is counted, looked up and sent once more for them.
SMALLEST = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix whose other rows are zero."""

    numbers: torch.Tensor  # int64 [R], ascending
    values: torch.Tensor  # [R, width]


class EmbeddingReducer:
    """Sums the word embeddings' gradient by rows, that of all other parameters by another reducer (``fast``)."""

    def __init__(self, others: Reducer, weight: nn.Parameter, comm: Comm) -> None:
        """weight: as `word_embeddings` returned it; ``others`` leaves it out."""
        self.others, self.weight, self.comm = others, weight, comm
        self.buffer = torch.zeros_like(weight, requires_grad=False)
        self.filled: torch.Tensor | None = None  # numbers of the rows that the last step left in the buffer
        # Which rows this rank's shards have filled. Summed over the ranks it need not be exact, only not zero.
        self.mine = torch.zeros(len(weight), dtype=torch.float16)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._clear()
        self.others.backward(loss, last=last)
        rows = self._take()
        self.mine[rows.numbers] = 1
        self._keep(rows)

    def finish(self) -> None:
        self._clear()
        if self.comm.size > 1:
            self.comm.wait(self.comm.add_async(self.mine, "embedding/filled"))
        self.filled = self.mine.nonzero().flatten()
        self.mine.zero_()
        values = self._values(self.filled)
        handle = self.comm.add_async(values, "embedding/rows") if self.comm.size > 1 else values
        self.others.finish()
        values = self.comm.wait(handle) if self.comm.size > 1 else handle
        self.buffer[self.filled] = self._gradient(values)
        self.weight.grad = self.buffer

    def _take(self) -> Rows:
        """Return the gradient of the shard whose backward has just run, and remove it from the parameter."""
        gradient, self.weight.grad = self.weight.grad, None
        if gradient is None:
            return Rows(self.mine.new_empty(0, dtype=torch.int64), self.buffer[:0])
        if not gradient.is_sparse:  # the model reads the matrix in another way, too
            return Rows(torch.arange(len(gradient)), gradient)
        return _each_once(gradient)

    def _keep(self, rows: Rows) -> None:
        """Keep what a shard gives until the step's end."""
        self.buffer[rows.numbers] += rows.values

    def _values(self, filled: torch.Tensor) -> torch.Tensor:
        """Return what this rank adds to the filled rows, [R, width], in the form that is summed. May be collective."""
        return self.buffer[filled]

    def _gradient(self, values: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the filled rows, of their sums."""
        return values.to(self.weight.dtype)

    def _clear(self) -> None:
        """Clear what the last step left in the buffer, if nobody has yet."""
        if self.filled is None:
            return
        self.buffer[self.filled] = 0
        self.filled = None


class OrderFreeEmbeddingReducer(EmbeddingReducer):
    """The same in integers, with the bits that `OrderFreeReducer` gives (``exact``)."""

    def __init__(self, others: Reducer, weight: nn.Parameter, comm: Comm, num_shards: int) -> None:
        super().__init__(others, weight, comm)
        self.num_shards = num_shards
        self.terms: list[Rows] = []
        self.unit = torch.ones((), dtype=torch.float64)

    def _keep(self, rows: Rows) -> None:
        self.terms.append(rows)

    def _values(self, filled: torch.Tensor) -> torch.Tensor:
        largest = self._largest()
        if self.comm.size > 1:
            largest = self.comm.maximum(largest, "embedding/largest")
        self.unit = fixedpoint.units(largest, self.num_shards)
        total = torch.zeros(len(filled), *self.weight.shape[1:], dtype=torch.int64)
        for rows in self.terms:
            total[torch.searchsorted(filled, rows.numbers)] += fixedpoint.quantise(rows.values, self.unit)
        self.terms.clear()
        return total

    def _largest(self) -> torch.Tensor:
        """Return the largest magnitude in this rank's shards, float64 []; inf stands for all not finite."""
        values = [largest_magnitude(each.values).double() for each in self.terms if each.values.numel()]
        largest = torch.stack(values).max() if values else torch.zeros((), dtype=torch.float64)
        # The maximum over the ranks takes a number over a NaN.
        return torch.where(largest.isnan(), float("inf"), largest)

    def _gradient(self, values: torch.Tensor) -> torch.Tensor:
        return fixedpoint.dequantise(values, self.unit, self.weight.dtype)


def _each_once(gradient: torch.Tensor) -> Rows:
    """Return a sparse gradient's rows, those of one number added in their order: bitwise what the dense one holds.

    (`torch.Tensor.coalesce` adds them in another order.)
    """
    numbers, place = torch.unique(gradient._indices()[0], return_inverse=True)
    values = torch.ops.aten.embedding_dense_backward(gradient._values(), place, len(numbers), -1, False)
    return Rows(numbers, values)


def _input_embeddings(model: nn.Module) -> nn.Module | None:
    find: Any = getattr(model, "get_input_embeddings", None)  # a model of transformers has it
    return find() if find else None


def word_matrix(model: nn.Module) -> nn.Parameter | None:
    """Return a model's word embeddings, or None where it has none or they are not trained. **Pure.**"""
    weight = getattr(_input_embeddings(model), "weight", None)
    return weight if isinstance(weight, nn.Parameter) and weight.requires_grad else None


def word_embeddings(model: nn.Module) -> nn.Parameter | None:
    """Make the gradient of a model's word embeddings sparse and return them, or None where it has to be dense.

    It has to be where another layer has the same matrix and gives all rows a gradient, and on a GPU: there the host
    would have to wait for the number of rows, and clearing the matrix takes some microseconds. A small matrix is dense,
    too.
    """
    module = _input_embeddings(model)
    if not isinstance(module, nn.Embedding) or module.scale_grad_by_freq or module.max_norm is not None:
        return None
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    num_layers = sum(each is weight for _, each in model.named_parameters(remove_duplicate=False))
    if num_layers > 1 or not weight.requires_grad or weight.device.type != "cpu" or weight.numel() < SMALLEST:
        return None
    module.sparse = True
    return weight
