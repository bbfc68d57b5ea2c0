"""Let a model's head compute its numbers for the whole vocabulary at the masked tokens alone.

A model of masked tokens gives a number for each word of its vocabulary at each token: 16 million for 512 tokens of a
BERT, of which the loss reads about a seventh. Its head works on each token by itself, so the tokens that nothing reads
are taken out between the body and the head; what is left is one row, [1, masked tokens, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import torch
from ringtune.train.packing import current
from torch import nn

#: Places of the masked tokens in a batch as it is, flattened, and in the packed one; int64.
PADDED_PLACES, PACKED_PLACES = "masked_places", "masked_packed_places"
#: Numbers of tokens that are multiples of this are few and come again: see `packing.EVEN_TOKENS`.
EVEN = 8

_Places = Mapping[str, torch.Tensor]
#: Of the batch that this thread computes; None: the head reads all tokens.
_places: ContextVar[_Places | None] = ContextVar("masked_places", default=None)


def read_masked_tokens(model: nn.Module) -> None:
    """Let a model take the places of the masked tokens beside its inputs; without them it gives what it always gave."""
    body: Any = model.base_model
    model.register_forward_pre_hook(_begin, with_kwargs=True)
    body.register_forward_hook(_masked_only)
    model.register_forward_hook(_end, always_call=True)


def _begin(_model: nn.Module, words: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Take the places out of a model's inputs."""
    names = (PADDED_PLACES, PACKED_PLACES)
    found = {name: inputs[name] for name in names if name in inputs}
    _places.set(found or None)
    return words, {name: each for name, each in inputs.items() if name not in names}


def _masked_only(_body: nn.Module, _inputs: Any, output: Any) -> Any:
    """Return the body's output with the states of the masked tokens alone, [1, masked tokens, H]."""
    places = _places.get()
    if places is None:
        return output
    # A batch may have been packed by the model itself.
    where = places[PADDED_PLACES if current.get() is None else PACKED_PLACES]
    states = output[0].flatten(0, 1).index_select(0, where)[None]
    if isinstance(output, tuple):
        return (states, *output[1:])
    output.last_hidden_state = states
    return output


def _end(_model: nn.Module, _words: tuple[Any, ...], _output: Any) -> None:
    _places.set(None)
