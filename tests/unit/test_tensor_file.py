"""The content of a safetensors file, laid out in memory that is used again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from ringtune.train.tensor_file import ALIGNMENT, TYPES, TensorFile
from safetensors.torch import load, save


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of any bits."""
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (size,), dtype=torch.uint8).view(dtype).view(shape)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether tensors are the same; NaN, too."""
    bits = [each.contiguous().view(-1).view(torch.uint8) for each in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


SHAPES = some.lists(some.integers(0, 4), max_size=3).map(tuple)
SOME_TENSORS = some.dictionaries(
    some.text(min_size=1, max_size=8), some.builds(drawn, SHAPES, some.sampled_from([*TYPES]))
)


@given(SOME_TENSORS)
def test_safetensors_reads_what_was_filled_in(tensors):
    tensors.pop("__metadata__", None)  # the format's own
    content = bytes(TensorFile().fill(tensors))
    assert int.from_bytes(content[:8], "little") % ALIGNMENT == 0
    found = load(content)
    assert found.keys() == tensors.keys()
    assert all(same_bits(found[name], each) for name, each in tensors.items())


def test_a_file_of_a_model_has_the_bytes_of_safetensors():
    """Models were saved by it so far: their files do not change."""
    tensors = {
        "b.weight": torch.randn(3, 5),
        "a.bias": torch.randn(7),
        "c.steps": torch.arange(3),
        "é": torch.randn(()),
    }
    assert bytes(TensorFile({"format": "pt"}).fill(tensors)) == save(tensors, metadata={"format": "pt"})
    assert bytes(TensorFile().fill(tensors)) == save(tensors)


def test_a_tensor_that_is_not_contiguous_is_laid_out_in_order():
    tensor = torch.arange(6.0).view(2, 3).t()
    assert same_bits(load(bytes(TensorFile().fill({"w": tensor})))["w"], tensor)


def test_content_does_not_follow_the_parameters_and_has_tied_ones_once():
    weight = torch.ones(3)
    content = TensorFile().fill({"a": weight, "tied": weight, "b": torch.zeros(2)})
    weight.add_(1)
    found = load(bytes(content))
    assert set(found) == {"a", "b"}
    assert found["a"].tolist() == [1.0] * 3


def test_memory_is_used_again_and_other_shapes_get_their_own():
    file = TensorFile()
    file.fill({"w": torch.zeros(9)})
    place = file.memory.data_ptr()
    assert load(bytes(file.fill({"w": torch.ones(9)})))["w"].tolist() == [1.0] * 9
    assert file.memory.data_ptr() == place
    assert load(bytes(file.fill({"w": torch.ones(8), "v": torch.ones(2, 2)})))["v"].tolist() == [[1.0] * 2] * 2


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_has_the_name_that_safetensors_gives_it(dtype):
    tensors = {"w": drawn((3,), dtype)}
    assert bytes(TensorFile().fill(tensors)) == save(tensors)
