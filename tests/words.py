"""Small models whose word embeddings are mostly left alone by a step, and their training, by rows or dense."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

import torch
from ringtune.train import embedding, gradient
from ringtune.train.clip import clip
from ringtune.train.row_update import RowUpdate

NUM_TOKENS = 400


def classifier(family: str = "bert") -> torch.nn.Module:
    """Return a real model; importing transformers takes a while, so it is imported here."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(1)
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(family, vocab_size=NUM_TOKENS, pad_token_id=1, num_labels=3, **settings)
    return AutoModelForSequenceClassification.from_config(config)


class Bag(torch.nn.Module):
    """The least that has word embeddings: their mean over a row's tokens, and a head. Few tensors, few collectives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = torch.nn.Embedding(NUM_TOKENS, 32, padding_idx=1)
        self.head = torch.nn.Linear(32, 3)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.words

    def forward(self, input_ids, attention_mask):
        states = torch.nn.functional.dropout(self.words(input_ids), 0.1, self.training)
        return SimpleNamespace(logits=self.head((states * attention_mask[:, :, None]).mean(dim=1)))


class Alone:
    """Stands in for the ranks: there is one."""

    size = 1


def reducer_of(model, *, exact=False, by_rows=True, comm=Alone, num_shards=2):
    """Return the reducer of a model's parameters."""
    with patch.object(embedding, "SMALLEST", 0):
        words = embedding.word_embeddings(model) if by_rows else None
    others = {name: each for name, each in model.named_parameters() if each is not words}
    if exact:
        reducer = gradient.OrderFreeReducer(others, comm, num_shards)
        return reducer if words is None else embedding.OrderFreeEmbeddingReducer(reducer, words, comm, num_shards)
    reducer = gradient.OverlappedReducer(others, comm)
    return reducer if words is None else embedding.EmbeddingReducer(reducer, words, comm)


def batch(step: int, shard: int) -> dict[str, torch.Tensor]:
    """Return rows of tokens, padded: other tokens in each tenth step, so that most rows of the matrix have moments and
    no gradient, and some neither."""
    draw = torch.Generator().manual_seed(100 * step + shard)
    ids = 4 + (torch.rand(3, 10, generator=draw) * 30).long() + 35 * (step % 10)
    lengths = torch.randint(2, 11, (3, 1), generator=draw)
    mask = (torch.arange(10) < lengths).long()
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


def train(model, reducer, steps: range, shards=(0, 1)) -> list[torch.Tensor]:
    """Train with weight decay, dropout and clipping; return parameters and moments."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    row_update = RowUpdate(optimizer, model.get_input_embeddings().weight)
    model.train()
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        for shard in shards:
            torch.manual_seed(1000 * step + shard)
            loss = model(**batch(step, shard)).logits.square().sum()
            reducer.backward(loss, last=shard == shards[-1])
        reducer.finish()
        filled = reducer.filled if isinstance(reducer, embedding.EmbeddingReducer) else None
        clip(model.parameters(), 1.0, model.get_input_embeddings().weight, filled)
        with row_update.after_a_step(filled):
            optimizer.step()
    moments = [optimizer.state[each][name] for each in model.parameters() for name in ("exp_avg", "exp_avg_sq")]
    return [*model.parameters(), *moments]


def same(one, other) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))
