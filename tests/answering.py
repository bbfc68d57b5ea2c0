"""Models of random numbers that answer questions, and what is to be had from them the plain way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import questions
import torch
from ringtune.train.task.question_answering import QuestionAnswering
from transformers import AutoConfig, AutoModelForQuestionAnswering

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
SIZES |= {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64, "embedding_size": 32}  # names of other families
ROWS = list(questions.rows(14, 3, unanswered=True))
TASK = QuestionAnswering(None, has_unanswered=True, n_best_size=5, max_answer_length=4)


def answerer(family: str = "bert", **more: object) -> torch.nn.Module:
    """Return a model whose numbers depend visibly on every token and every position."""
    torch.manual_seed(2)
    settings = {**SIZES, **TASK.model_settings(), "initializer_range": 0.4, "vocab_size": 80, "pad_token_id": 0, **more}
    model = AutoModelForQuestionAnswering.from_config(AutoConfig.for_model(family, **settings)).eval()
    if family == "modernbert":
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    return model


def batch_of(rows, *, labelled: bool = True) -> pa.RecordBatch:
    """Return rows as the reader gives them."""
    columns = {name: [row[key] for row in rows] for name, key in (("text/0", "question"), ("text/1", "context"))}
    if labelled:
        columns["label"] = [
            [{"text": text, "start": start} for text, start in zip(*row["answers"].values(), strict=True)]
            for row in rows
        ]
    return pa.RecordBatch.from_pydict(columns)


def naive(start: np.ndarray, end: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[tuple[float, int, int]]:
    """Return the best spans of a window, from all that are possible."""
    found = [
        (float(start[i] + end[j]), i, j)
        for i in range(len(start))
        for j in range(i, min(len(start), i + TASK.max_answer_length))
        if starts[i] >= 0 and starts[j] >= 0
    ]
    best = sorted(found, key=lambda each: (-each[0], each[1], each[2]))[: TASK.n_best_size]
    return [(score, int(starts[i]), int(ends[j])) for score, i, j in best]
