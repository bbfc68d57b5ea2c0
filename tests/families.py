"""Tiny random models of other families than BERT, with tokenizers that are real."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from tiny import WORDS

#: For each family: the name of its SentencePiece file, and the pieces that are no text, by SentencePiece's flags.
PIECES: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2": (
        "spm.model",
        {
            "pad_id": 0,
            "pad_piece": "[PAD]",
            "bos_id": 1,
            "bos_piece": "[CLS]",
            "eos_id": 2,
            "eos_piece": "[SEP]",
            "unk_id": 3,
            "unk_piece": "[UNK]",
            "user_defined_symbols": ["[MASK]"],
        },
    ),
    "xlm-roberta": ("sentencepiece.bpe.model", {"unk_id": 0, "bos_id": 1, "eos_id": 2}),
    "albert": (
        "spiece.model",
        {
            "pad_id": 0,
            "pad_piece": "<pad>",
            "unk_id": 1,
            "bos_id": -1,
            "eos_id": -1,
            "control_symbols": ["[CLS]", "[SEP]"],
            "user_defined_symbols": ["[MASK]"],
        },
    ),
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def write_model(folder: Path, family: str, **settings: Any) -> Path:
    """Write a tiny random classifier with two classes into a folder, without a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(family, **{**SMALL, **settings})
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def write_sentencepiece(folder: Path, family: str) -> Path:
    """Write a model whose only tokenizer file is SentencePiece's, as many on the hub are; return that file."""
    import sentencepiece
    from transformers import AutoTokenizer

    name, settings = PIECES[family]
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=8)) for _ in range(200)]
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=content,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    write_model(folder, family, vocab_size=64)
    (folder / name).write_bytes(content.getvalue())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_model(folder, family, vocab_size=len(tokenizer), **special_tokens(tokenizer))
    return folder / name


def special_tokens(tokenizer: Any) -> dict[str, int | None]:
    """Return the numbers of a tokenizer's special tokens, as a configuration has them."""
    return {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(getattr(tokenizer, each))
        for name, each in (("pad", "pad_token"), ("bos", "cls_token"), ("eos", "sep_token"))
    }
