"""What a model's body takes, known from its configuration before any row is read."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

POSITION_TABLES = ("position_embeddings", "char_position_embeddings", "wpe", "embed_positions")


@dataclass(frozen=True)
class Body:
    """What a body takes of a row."""

    num_tokens: int  # that it has embeddings for
    num_positions: int | None  # tokens of a row at most; None: its positions are relative, any number will do
    num_segments: int | None  # 0: it takes no segment ids; None: any
    counts_padding: bool  # RoBERTa's family: a token's position is counted from those that are not the padding token

    @classmethod
    def of(cls, config: Any) -> Body:
        """Return what a configuration's body takes; it is built without memory for its weights.

        Raises what transformers raises for a configuration that makes no model.
        """
        from transformers import AutoModel

        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        embeddings = model.get_input_embeddings()
        if not isinstance(embeddings, nn.Embedding):
            raise ValueError(f"a model of type {config.model_type} reads no tokens")
        tables = [
            each
            for name, each in model.named_modules()
            if isinstance(each, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES
        ]
        takes_segments = "token_type_ids" in inspect.signature(model.forward).parameters
        return cls(
            num_tokens=embeddings.num_embeddings,
            num_positions=_num_positions(config, tables),
            num_segments=getattr(config, "type_vocab_size", None) if takes_segments else 0,
            counts_padding=any(each.padding_idx is not None for each in tables),
        )


def _num_positions(config: Any, tables: list[nn.Embedding]) -> int | None:
    """Return the tokens of a row that there are positions for.

    Positions that are counted from the padding token begin behind its number (transformers'
    ``create_position_ids_from_input_ids``), those of BART and Nyströmformer at 2, which their configuration leaves out.
    """
    sizes = [each.num_embeddings - (0 if each.padding_idx is None else each.padding_idx + 1) for each in tables]
    if sizes and isinstance(getattr(config, "max_position_embeddings", None), int):
        sizes.append(config.max_position_embeddings)
    return min(sizes, default=None)
